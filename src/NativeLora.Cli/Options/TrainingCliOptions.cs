using System.CommandLine;
using NativeLora.Training;

namespace NativeLora.Cli.Options;

/// <summary>How a training goes.</summary>
internal sealed class TrainingCliOptions
{
    private readonly Option<string?> _output = new("--output", "-o") { Description = "folder of the adapter, metrics.jsonl and checkpoints (default: nativelora-MODEL-TASK)", HelpName = "DIR" };
    private readonly Option<int> _epochs = new("--epochs") { Description = "passes over the data", DefaultValueFactory = _ => 3, HelpName = "N" };
    private readonly Option<int?> _steps = new("--max-steps") { Description = "optimizer steps, in place of --epochs", HelpName = "N" };
    private readonly Option<int?> _batch = new("--batch-size") { Description = "sequences of a batch (default: 32)", HelpName = "N" };
    private readonly Option<int?> _tokens = new("--batch-tokens") { Description = "tokens of a batch at most, in place of --batch-size", HelpName = "N" };
    private readonly Option<int> _accumulation = new("--accumulation") { Description = "batches of an update", DefaultValueFactory = _ => 1, HelpName = "N" };
    private readonly Option<double> _rate = new("--lr") { Description = "learning rate", DefaultValueFactory = _ => 2e-4, HelpName = "X" };
    private readonly Option<string> _schedule = new("--schedule") { Description = "linear, cosine, constant or constant_with_warmup", DefaultValueFactory = _ => "linear", HelpName = "NAME" };
    private readonly Option<double> _ratio = new("--warmup-ratio") { Description = "share of the steps that is warm-up", DefaultValueFactory = _ => 0.06, HelpName = "X" };
    private readonly Option<int?> _warmup = new("--warmup-steps") { Description = "steps of warm-up, in place of --warmup-ratio", HelpName = "N" };
    private readonly Option<double> _decay = new("--weight-decay") { Description = "AdamW's weight decay", HelpName = "X" };
    private readonly Option<double> _clip = new("--clip") { Description = "norm that gradients are clipped at; 0 for none", DefaultValueFactory = _ => 1.0, HelpName = "X" };
    private readonly Option<string> _dropout = new("--base-dropout") { Description = "on: the base model's own dropouts act, as its config says; off: they do not", DefaultValueFactory = _ => "on", HelpName = "ON" };
    private readonly Option<string> _order = new("--order") { Description = "shuffled, or as in the file", DefaultValueFactory = _ => "shuffled", HelpName = "shuffled|file" };
    private readonly Option<int> _evaluate = new("--eval-every") { Description = "steps between evaluations; 0: after each epoch", HelpName = "N" };
    private readonly Option<string?> _best = new("--keep-best") { Description = "keep the weights of the evaluation that is best by this metric", HelpName = "METRIC" };
    private readonly Option<int> _save = new("--save-every") { Description = "steps between checkpoints; 0: at the end and when interrupted", HelpName = "N" };
    private readonly Option<int> _keep = new("--keep-checkpoints") { Description = "checkpoints that stay, beside the best", DefaultValueFactory = _ => 2, HelpName = "N" };
    private readonly Option<bool> _residual = new("--save-residual") { Description = "store a PiSSA or OLoRA adapter as it is, not as plain LoRA of twice the rank" };
    private readonly Option<int> _log = new("--log-every") { Description = "steps between lines of metrics.jsonl", DefaultValueFactory = _ => 1, HelpName = "N" };
    private readonly Option<bool> _resume = new("--resume") { Description = "go on from the newest checkpoint of the output folder" };
    private readonly Option<bool> _overwrite = new("--overwrite") { Description = "begin anew where the output folder holds a training" };

    private readonly Option<int?> _profile = new("--profile")
    {
        Description = "time every operation of N steps (5 if no number is given), after two that are not timed, and write profile.json, which report shows",
        HelpName = "N",
        Arity = ArgumentArity.ZeroOrOne,
    };

    private readonly MemoryOptions _memory = new();

    /// <summary>Sequences of an evaluation's batch, as Hugging Face's Trainer has them.</summary>
    public const int EvaluationBatch = 8;

    private const int DefaultProfile = 5;

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])
            [_output, _epochs, _steps, _batch, _tokens, _accumulation, _rate, _schedule, _ratio, _warmup, _decay, _clip, _dropout, _order,
             _evaluate, _best, _save, _keep, _residual, _log, _profile, _resume, _overwrite])
            command.Options.Add(option);
        _memory.AddTo(command);
    }

    /// <summary>The options of a command that trains again and again and keeps house itself.</summary>
    public void AddRepeatedTo(Command command)
    {
        foreach (var option in (Option[])
            [_output, _epochs, _steps, _batch, _tokens, _accumulation, _rate, _schedule, _ratio, _warmup, _decay, _clip, _dropout, _order,
             _evaluate, _best, _save, _overwrite])
            command.Options.Add(option);
        _memory.AddTo(command);
    }

    public string? Output(ParseResult parsed) => parsed.GetValue(_output);

    public bool Overwrite(ParseResult parsed) => parsed.GetValue(_overwrite);

    /// <summary>The settings; without <c>--output</c> the folder is named after the model and the task.</summary>
    public TrainerOptions Read(ParseResult parsed, ulong seed, ModelSettings model, TaskSettings task)
    {
        var (batch, tokens, every) = (parsed.GetValue(_batch), parsed.GetValue(_tokens), parsed.GetValue(_evaluate));
        if (batch is not null && tokens is not null)
            throw new InputException("both --batch-size and --batch-tokens are given: give one of them");
        return new TrainerOptions
        {
            OutputFolder = parsed.GetValue(_output) ?? $"nativelora-{model.Name}-{task.Name}",
            Epochs = parsed.GetValue(_epochs),
            MaxSteps = parsed.GetValue(_steps),
            BatchSize = tokens is null ? batch ?? 32 : null,
            BatchTokens = tokens,
            AccumulationSteps = parsed.GetValue(_accumulation),
            LearningRate = parsed.GetValue(_rate),
            Schedule = LearningRate.KindOf(parsed.GetValue(_schedule)!),
            WarmupRatio = parsed.GetValue(_ratio),
            WarmupSteps = parsed.GetValue(_warmup),
            Adam = new AdamWOptions { WeightDecay = parsed.GetValue(_decay) },
            Optimizer = _memory.Optimizer(parsed),
            PackWeights = _memory.PackWeights(parsed),
            Recompute = _memory.Recompute(parsed, () => model.Blueprint().Model.Layers),
            MemoryBudget = _memory.Budget(parsed),
            MaxGradientNorm = parsed.GetValue(_clip),
            BaseDropout = Choice("--base-dropout", parsed.GetValue(_dropout)!, "off", "on"),
            FileOrder = Choice("--order", parsed.GetValue(_order)!, "shuffled", "file"),
            Seed = seed,
            // As eval has it: the loss of a language model depends on it.
            EvaluationBatchSize = EvaluationBatch,
            EvaluateEvery = every,
            EvaluateEachEpoch = every == 0,
            KeepBest = parsed.GetValue(_best),
            SaveEvery = parsed.GetValue(_save),
            KeepCheckpoints = parsed.GetResult(_keep) is null ? 1 : parsed.GetValue(_keep),
            SaveResidual = parsed.GetValue(_residual),
            LogEvery = parsed.GetResult(_log) is null ? 1 : parsed.GetValue(_log),
            ProfileSteps = Profiled(parsed),
            Resume = parsed.GetValue(_resume),
            Overwrite = parsed.GetValue(_overwrite),
        };
    }

    private int Profiled(ParseResult parsed)
    {
        if (parsed.GetResult(_profile) is null)
            return 0;
        var steps = parsed.GetValue(_profile) ?? DefaultProfile;
        return steps >= 1 ? steps : throw new InputException($"--profile {steps}: give at least 1 step, or leave it out");
    }

    private static bool Choice(string option, string given, string no, string yes) =>
        given == yes || (given == no ? false : throw new InputException($"{option} {given}: give {yes} or {no}"));
}
