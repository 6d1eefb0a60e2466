using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Generation;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tensors;
using NativeLora.Training;

namespace NativeLora.Hosting;

/// <summary>How layers are chosen and adapters trained: everything here has a default, the one of the command line.</summary>
public sealed record FineTuningOptions
{
    /// <summary>Folder of the adapter, <c>selection.json</c>, <c>metrics.jsonl</c> and checkpoints, made if it is not there. Null: nothing is kept on disk, the adapter is in memory.</summary>
    public string? OutputFolder { get; init; }

    /// <summary>Begin anew where the output folder holds a training, and remove its checkpoints; else that training goes on.</summary>
    public bool Overwrite { get; init; }

    /// <summary>Rows to evaluate on, after each epoch and at the end; of the kind of those to learn from. Empty: none.</summary>
    public IReadOnlyList<TrainingRow> Evaluation { get; init; } = [];

    /// <summary>Names of the classes in the order of their ids; null: those of the rows, sorted (as numbers if they all are whole numbers).</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>How layers are ranked.</summary>
    public SelectionStrategy Strategy { get; init; } = SelectionStrategy.Cka;

    /// <summary>Share of the layers that get adapters, above 0 and at most 1; strategies that choose no share pass it over.</summary>
    public double Ratio { get; init; } = 0.5;

    /// <summary>Whether similarities are ranked as the paper's scripts do it, or without their accidents.</summary>
    public SelectionRule Rule { get; init; } = SelectionRule.Paper;

    /// <summary>Rows that are compared to choose layers, from the first; null: all for encoders, 128 for decoders.</summary>
    public int? Samples { get; init; }

    /// <summary>Rank r of the adapters.</summary>
    public int Rank { get; init; } = 8;

    /// <summary>Alpha of the adapters: their scaling is alpha/r.</summary>
    public double Alpha { get; init; } = 16;

    /// <summary>Dropout on the input of the adapters.</summary>
    public double Dropout { get; init; }

    /// <summary>Passes over the rows.</summary>
    public int Epochs { get; init; } = 3;

    /// <summary>Learning rate after the warm-up, from where it falls in a line to 0.</summary>
    public double LearningRate { get; init; } = 2e-4;

    /// <summary>Rows of a batch.</summary>
    public int BatchSize { get; init; } = 32;

    /// <summary>Seed of everything random. The same seed gives the same bits on any number of threads.</summary>
    public ulong Seed { get; init; }

    /// <summary>Bytes that all that is planned may take: as few layers are recomputed as that needs. Null: no bound.</summary>
    public long? MemoryBudget { get; init; }

    /// <summary>Steps from checkpoint to checkpoint; 0: one at the end, and one when it is cancelled.</summary>
    public int CheckpointEvery { get; init; }

    /// <summary>Tokens of a row at most, longer ones are cut; null: 512, or less where the model's files say so.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Prompt around the rows of a decoder; null: they are taken as they are (<see cref="ChatTemplate.Plain"/>).</summary>
    public ChatTemplate? Template { get; init; }

    /// <summary>Threads; null: all processors.</summary>
    public int? Threads { get; init; }

    /// <summary>Element type of activations: fp32, or bf16.</summary>
    public ElementType Precision { get; init; } = ElementType.F32;

    /// <summary>Whether the blocks of a GGUF file are kept, and whether weights are quantized.</summary>
    public CheckpointOptions Checkpoint { get; init; } = new();

    /// <summary>A device of the caller's, who disposes of it afterwards. Null: the CPU.</summary>
    public Device? Device { get; init; }

    /// <summary>Changes any setting of the adapters, such as <c>lora =&gt; lora with { UseDora = true }</c>; null leaves them.</summary>
    public Func<LoraConfig, LoraConfig>? Lora { get; init; }

    /// <summary>Changes any setting of the training, such as <c>training =&gt; training with { AccumulationSteps = 4 }</c>; null leaves them.</summary>
    public Func<TrainerOptions, TrainerOptions>? Training { get; init; }

    /// <summary>Is told what happens; null: nobody. <c>NativeLora.Extensions</c> has one that logs.</summary>
    public IModelObserver? Observer { get; init; }

    /// <summary>Checks what can be checked without a model.</summary>
    /// <exception cref="InputException">A value makes no sense.</exception>
    public void Validate()
    {
        if (Samples is < 2)
            throw new InputException($"{Samples} samples are to be compared; give at least 2");
        if (MaxLength is < 1)
            throw new InputException($"the maximum length is {MaxLength}; give at least 1 token");
        if (Threads is < 1 or > 1024)
            throw new InputException($"the number of threads is {Threads}; give 1 to 1024");
        if (Device is not null && Threads is not null)
            throw new InputException("a device that is given has threads of its own; leave Threads out");
        if (Strategy is SelectionStrategy.Exhaustive or SelectionStrategy.Explicit)
            throw new InputException($"{SelectionOptions.NameOf(Strategy)} is no strategy of its own; give the layers to TrainAsync, or choose another strategy");
        ToTrainer("folder").Validate();
        ToLora(ModelHead.None, null).Validate();
        if (TakesRatio && !(Ratio is > 0 and <= 1))
            throw new InputException($"the ratio is {Ratio}; give a share of the layers above 0 and at most 1");
    }

    private bool TakesRatio => Strategy is not (SelectionStrategy.All or SelectionStrategy.None);

    /// <summary>Tokens of a row at most.</summary>
    /// <exception cref="InputException">More are asked for than the model takes.</exception>
    internal int LengthFor(Model model) => MaxLength <= model.MaxPositions || MaxLength is null
        ? Math.Min(MaxLength ?? 512, model.MaxPositions)
        : throw new InputException($"the maximum length is {MaxLength}; the model takes at most {model.MaxPositions} tokens");

    internal SelectionOptions ToSelection(Model model) => new()
    {
        Strategy = Strategy,
        Rule = Rule,
        Family = model.IsEncoder ? ModelFamily.Encoder : ModelFamily.Decoder,
        Ratio = TakesRatio ? Ratio : null,
        Seed = Seed,
    };

    /// <summary>PEFT's settings for all layers.</summary>
    internal LoraConfig ToLora(ModelHead head, string? baseModel)
    {
        var config = new LoraConfig
        {
            Rank = Rank,
            Alpha = Alpha,
            Dropout = Dropout,
            BaseModel = baseModel,
            TaskType = head switch
            {
                ModelHead.SequenceClassification => "SEQ_CLS",
                ModelHead.LanguageModel => "CAUSAL_LM",
                _ => null,
            },
        };
        return Lora?.Invoke(config) ?? config;
    }

    internal TrainerOptions ToTrainer(string folder)
    {
        var options = new TrainerOptions
        {
            OutputFolder = folder,
            Epochs = Epochs,
            LearningRate = LearningRate,
            WarmupRatio = 0.06,
            BatchSize = BatchSize,
            // As the command line has it: the loss of a language model depends on it.
            EvaluationBatchSize = 8,
            EvaluateEachEpoch = true,
            Seed = Seed,
            MemoryBudget = MemoryBudget,
            SaveEvery = CheckpointEvery,
            KeepCheckpoints = 1,
        };
        return (Training?.Invoke(options) ?? options) with { OutputFolder = folder };
    }
}
