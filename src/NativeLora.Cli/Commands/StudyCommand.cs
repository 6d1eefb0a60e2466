using System.CommandLine;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Cli.Study;
using NativeLora.Models;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora study</c>: compares choices of layers over tasks, ratios and seeds.</summary>
internal static class StudyCommand
{
    public static Command Create()
    {
        var (model, task, lora) = (new ModelOptions(), new TaskOptions(), new LoraOptions());
        var (selection, training) = (new SelectionCliOptions(), new TrainingCliOptions());
        var strategies = new Option<string>("--strategies")
        {
            Description = $"choices of layers that are compared: {string.Join(", ", Selection.SelectionOptions.StrategyNames)} (only what is trained in full, such as the head), or masks",
            DefaultValueFactory = _ => "all,cka,random,none",
            HelpName = "NAMES",
        };
        var ratios = new Option<string?>("--ratios") { Description = "shares of the layers to adapt, between commas (default: 0.5, and none where there is a budget)", HelpName = "X,Y" };
        var bytes = new Option<string?>("--budget-bytes")
        {
            Description = "planned bytes within which each strategy takes as many layers as fit, between commas: 200MiB; 60%, of the way from the cheapest layer to all; mask:000111, what that mask takes",
            HelpName = "SIZES",
        };
        var flops = new Option<string?>("--budget-flops") { Description = "the same for the operations of a step: 250G, 60%, mask:000111", HelpName = "AMOUNTS" };
        var seeds = new Option<string>("--seeds") { Description = "how many seeds, from 0 on, or the seeds between commas", DefaultValueFactory = _ => "3", HelpName = "N" };
        var json = new Option<bool>("--json") { Description = "print study.json and nothing else" };
        var command = new Command("study", "Compare choices of layers: train every strategy with every ratio and seed, and make the tables. Given again, it goes on.");
        model.AddTo(command);
        task.AddTo(command);
        foreach (var option in (Option[])[strategies, ratios, bytes, flops, seeds])
            command.Options.Add(option);
        selection.AddComparisonTo(command);
        lora.AddTo(command, withSeed: false);
        training.AddRepeatedTo(command);
        command.Options.Add(json);
        command.SetAction(parsed =>
        {
            var ui = new Ui(parsed.GetValue(json));
            var chosen = StudyGrid.Strategies(parsed.GetValue(strategies)!);
            IReadOnlyList<StudyBudget> budgets = [.. StudyBudget.Parse("--budget-bytes", parsed.GetValue(bytes), false), .. StudyBudget.Parse("--budget-flops", parsed.GetValue(flops), true)];
            var shares = parsed.GetValue(ratios) is { } given ? StudyGrid.Ratios(given) : budgets.Count > 0 ? [] : [0.5];
            var request = Read(parsed, model.Read(parsed), task, lora, selection, training, StudyGrid.Seeds(parsed.GetValue(seeds)!),
                (blueprint, complete) => StudyGrid.Rows(chosen, shares, budgets, blueprint.Model.Layers, complete));
            return Run(request, ui);
        });
        return command;
    }

    private static StudyRequest Read(
        ParseResult parsed, ModelSettings settings, TaskOptions task, LoraOptions lora, SelectionCliOptions selection, TrainingCliOptions training,
        IReadOnlyList<ulong> seeds, Func<ModelBlueprint, Func<Selection.SelectionOptions, double?, Selection.SelectionOptions>, IReadOnlyList<StudyRow>> rows)
    {
        var output = training.Output(parsed) ?? throw new InputException("no folder is given: use --output DIR; a study goes on where it holds one");
        var tasks = task.ReadAll(parsed);
        var blueprint = settings.Blueprint();
        var request = new StudyRequest
        {
            Model = settings,
            Blueprint = blueprint,
            Tasks = tasks,
            Rows = rows(blueprint, (strategy, ratio) => selection.Read(parsed, strategy, ratio, blueprint.Model, 0)),
            Seeds = seeds,
            Lora = head => lora.Read(parsed, head, settings.Path),
            Training = (t, seed) => training.Read(parsed, seed, settings, t),
            Features = (options, eos) => selection.Features(parsed, options, eos),
            Samples = selection.Samples(parsed, blueprint.Model),
            Output = output,
            Overwrite = training.Overwrite(parsed),
            CommandText = Again(parsed),
        };
        // What can be wrong is found before any data are read.
        request.Training(tasks[0], 0).Validate();
        _ = request.Lora(ModelHead.SequenceClassification);
        if (request.Rows.Any(r => r.Budget is not null) && request.Training(tasks[0], 0).MemoryBudget is not null)
            throw new InputException("--memory-budget recomputes layers until a mask fits, and --budget-bytes or --budget-flops choose the mask: give one of them, with --recompute if layers shall be recomputed");
        foreach (var row in request.Rows.Where(r => r.NeedsScores))
            _ = request.Features(row.Options, null);
        AtomicFile.CheckFolder(output);
        return request;
    }

    private static int Run(StudyRequest request, Ui ui)
    {
        StudyReport report;
        try
        {
            report = new StudyRun(request, ui).Run();
        }
        catch (OperationCanceledException) when (Shell.Cancellation.IsCancellationRequested)
        {
            Shell.Fail($"interrupted; what is done is kept, go on with: {request.CommandText}");
            return Signals.ExitCode;
        }
        report.Show(ui);
        if (ui.Json)
            Ui.WriteJson(report.ToJson());
        return 0;
    }

    // The same command, but for what would begin it anew.
    private static string Again(ParseResult parsed)
    {
        var words = parsed.Tokens.Select(t => t.Value).SkipWhile(w => w == "study").Where(w => w != "--overwrite");
        return $"nativelora study {string.Join(' ', words.Select(w => w.Length > 0 && w.All(c => char.IsLetterOrDigit(c) || "-_./,:=+@".Contains(c)) ? w : $"'{w.Replace("'", "'\\''", StringComparison.Ordinal)}'"))}";
    }
}
