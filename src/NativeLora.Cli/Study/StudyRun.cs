using System.Globalization;
using NativeLora.Adapters;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Study;

/// <summary>A study from beginning to end: scores of each task, the grid, its trainings, the tables.</summary>
internal sealed class StudyRun(StudyRequest request, Ui ui)
{
    private readonly SortedDictionary<string, string> _settings = new(StringComparer.Ordinal);

    /// <summary>Runs what is not there yet.</summary>
    /// <exception cref="OperationCanceledException">It was interrupted; what is done is kept.</exception>
    /// <returns>What it came to; its files are written.</returns>
    public StudyReport Run()
    {
        var tokenizer = TokenizerLoader.FromFolder(request.Model.Folder);
        var tasks = OpenTasks(tokenizer);
        using var folder = StudyFolder.Open(request.Output, _settings, request.Overwrite);
        var leftOut = new List<LeftOut>();
        var cells = tasks.SelectMany(t => Cells(t, folder, tokenizer, leftOut)).ToList();
        foreach (var group in leftOut.GroupBy(l => (l.Task, l.Row)))
            ui.Fact("left out", $"{group.Key.Task.Key}  {group.Key.Row.Label}: {group.First().Reason}");
        if (cells.Count == 0)
            throw new InputException($"no strategy has a layer that fits its budget: {leftOut[0].Reason}");
        var report = new StudyReport(request, _settings, cells, leftOut, Train(cells, folder, tokenizer));
        report.Write();
        return report;
    }

    private List<StudyTask> OpenTasks(ITokenizer tokenizer)
    {
        using var device = request.Model.NewDevice();
        ModelView.Line(ui, request.Model, request.Blueprint.Model, device);
        using (var pretrained = request.Model.Open(device, null))
            _settings["model"] = Fingerprint.Of(pretrained);
        // The seed is the cell's; whatever else trainings depend on counts for all of them.
        foreach (var (name, value) in StudySettings.Of(request.Training(request.Tasks[0], 0)))
            _settings[name] = value;
        var opened = new List<(string Key, TaskSettings Settings, TaskSetup Setup, TaskExamples Examples, LoraConfig Lora)>();
        foreach (var settings in request.Tasks)
        {
            var key = Key(settings);
            if (opened.Any(o => o.Key == key))
                throw new InputException($"task {key} is given twice");
            var setup = TaskSetup.Open(settings.ReadBy(request.Blueprint.Model).InOrderOf(TaskSettings.NamesOf(request.Blueprint.Model.Config)));
            setup.Check(request.Training(settings, 0));
            if (setup.LoadDev().Count == 0)
                throw new InputException($"task {settings.Name}: there is nothing to evaluate on in {string.Join(' ', settings.Data)}, and a study compares evaluations; give --dev");
            var lora = request.Lora(setup.Head);
            CheckHeadOnly(setup, lora);
            var examples = TaskExamples.Of(setup, tokenizer, request.Blueprint.Model);
            ui.Fact("task", $"{key}: {Ui.Count(examples.Train.Count, "row")} of {setup.Train.Path}, evaluated on {string.Join(" and ", examples.Dev.Select(d => $"{Ui.Count(d.Examples.Count, "row")} of {d.Split}"))}");
            foreach (var (name, value) in StudySettings.Of(lora))
                _settings[$"{key}: {name}"] = value;
            _settings[$"{key}: training data"] = Fingerprint.Of(examples.Train);
            _settings[$"{key}: evaluation data"] = string.Join("; ", examples.Dev.Select(d => Fingerprint.Of(d.Examples)));
            if (request.Rows.FirstOrDefault(r => r.NeedsScores) is { } ranked)
                foreach (var (name, value) in StudySettings.Of(ranked.Options, request.Features(ranked.Options, setup.PadId(request.Blueprint.Model, tokenizer)), request.Samples))
                    _settings[$"{key}: {name}"] = value;
            opened.Add((key, settings, setup, examples, lora));
        }
        return [.. opened.Select(o => new StudyTask(o.Key, o.Settings, o.Setup, o.Examples, o.Lora, StudyFolder.Hash(StudySettings.OfTrainings(_settings), o.Key)))];
    }

    // Two data sets may be of one task.
    private string Key(TaskSettings settings) => request.Tasks.Count(t => t.Name == settings.Name) == 1
        ? settings.Name : $"{settings.Name}-{Path.GetFileNameWithoutExtension(Path.TrimEndingDirectorySeparator(settings.Data[0]))}";

    private void CheckHeadOnly(TaskSetup setup, LoraConfig lora)
    {
        if (setup.Head == ModelHead.LanguageModel && lora.ModulesToSave is null && lora.Bias != LoraBias.All && request.Rows.Any(r => r.Is(SelectionStrategy.None)))
            throw new InputException($"strategy none trains nothing in task {setup.Name}, which has no head: leave it out, or name --modules-to-save");
    }

    private List<StudyCell> Cells(StudyTask task, StudyFolder folder, ITokenizer tokenizer, List<LeftOut> leftOut)
    {
        var layers = request.Blueprint.Model.Layers;
        var scores = Scores(task, folder.Selection(task.Key), tokenizer);
        var modules = PretrainedModel.Modules(request.Blueprint.Model, task.Setup.Head);
        using var device = request.Model.NewDevice();
        var plans = request.Rows.Any(r => r.Budget is not null) ? StudyPlans.Of(request, task, device) : null;
        var cells = new List<StudyCell>();
        foreach (var seed in request.Seeds)
            foreach (var row in request.Rows)
            {
                if (Choose(row, seed) is not var (choice, within))
                    continue;
                int[] chosen = [.. choice.Selected.Order()];
                // Targets may fit some layers only: known now, not after hours.
                if (chosen.Length > 0)
                    _ = TargetResolver.ForLayers(task.Lora, modules, chosen);
                cells.Add(new StudyCell(task, row, seed, chosen, choice.Mask) { Within = within });
            }
        return cells;

        (LayerSelection Choice, CellBudget? Within)? Choose(StudyRow row, ulong seed)
        {
            var options = row.Options with { Seed = seed };
            if (row.Budget is not { } budget)
                return (LayerSelection.Select(layers, scores, options), null);
            var limit = budget.Resolve(plans!, layers);
            try
            {
                var found = plans!.Select(scores, options, budget.Of(limit), Shell.Cancellation);
                return (found.Selection, new CellBudget(budget, limit, budget.Cost(found.Cost)));
            }
            catch (InputException e)
            {
                leftOut.Add(new LeftOut(task, row, seed, e.Message));
                return null;
            }
        }
    }

    // Similarities and gradients are measured apart, each once: a study that goes on may need the one that it has not.
    private LayerScores? Scores(StudyTask task, string folder, ITokenizer tokenizer)
    {
        var scores = request.Rows.Any(r => r.NeedsScores) ? StudyScores.Find(folder, request.Blueprint.Model.Layers) : null;
        if (request.Rows.FirstOrDefault(r => r.NeedsFeatures) is { } compared && scores?.Cka.Any(v => v is not null) != true)
        {
            var measured = Measure(task, compared, folder, tokenizer);
            StudyScores.Save(folder, scores = measured with { Gradient = scores?.Gradient, GradientPerByte = scores?.GradientPerByte });
        }
        if (request.Rows.FirstOrDefault(r => r.NeedsGradients) is { } pulled && scores?.Gradient is null)
        {
            var measured = Measure(task, pulled, Path.Combine(folder, "gradient"), tokenizer);
            StudyScores.Save(folder, scores = scores is null ? measured : scores with { Gradient = measured.Gradient, GradientPerByte = measured.GradientPerByte });
        }
        return scores;
    }

    private LayerScores Measure(StudyTask task, StudyRow row, string folder, ITokenizer tokenizer)
    {
        using var device = request.Model.NewDevice();
        using var model = request.Model.Open(device, task.Setup.Labels);
        ui.Title($"Layers on {task.Key}");
        var batch = request.Training(task.Settings, 0).BatchSize ?? 32;
        var result = SelectionRun.Go(ui, request.Model, task.Setup, model, tokenizer, task.Lora,
            new SelectionRun.Plan(Measured(row.Options), request.Features(row.Options, task.Setup.PadId(request.Blueprint.Model, tokenizer)), request.Samples, 0, batch));
        SelectionRun.Write(request.Model, task.Setup, result, folder);
        return result.Scores!;
    }

    // Without a ratio the choice that is written beside the scores is half of the layers; a suggestion looks at the scores of a strategy that ranks.
    private SelectionOptions Measured(SelectionOptions options) => options with
    {
        Strategy = options.Strategy switch
        {
            SelectionStrategy.Suggest => SelectionStrategy.Cka,
            SelectionStrategy.SuggestGradient => SelectionStrategy.Gradient,
            var ranks => ranks,
        },
        Count = options.Ratio is null ? Math.Max(1, request.Blueprint.Model.Layers / 2) : null,
    };

    private Dictionary<(string Task, string Mask, ulong Seed), CellResult> Train(List<StudyCell> cells, StudyFolder folder, ITokenizer tokenizer)
    {
        var results = new Dictionary<(string Task, string Mask, ulong Seed), CellResult>();
        var trainings = cells.DistinctBy(c => c.Training).ToList();
        ui.Title($"{Ui.Count(cells.Count, "cell")}, {Ui.Count(trainings.Count, "training")}");
        using var progress = new StudyProgress(ui, trainings.Count);
        // A seed is done with all strategies before the next, so that what else the machine does hits all of them.
        foreach (var cell in trainings)
        {
            Shell.Cancellation.ThrowIfCancellationRequested();
            var place = folder.Cell(cell.Task.Key, cell.Mask, cell.Seed);
            if (CellResult.Find(place, cell.Task.Key, cell.Mask, cell.Seed, cell.Task.Hash) is { } known)
            {
                CellTraining.RemoveCheckpoints(place);
                results[cell.Training] = known;
                progress.Skip();
                continue;
            }
            progress.Begin(cell);
            var result = results[cell.Training] = CellTraining.Run(request, cell, tokenizer, place, progress);
            progress.End(result, cell.Task.Metric);
        }
        return results;
    }
}
