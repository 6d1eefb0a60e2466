using NativeLora.Adapters;
using NativeLora.Cli.Options;
using NativeLora.Data;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Study;

/// <summary>A study as the command line asks for it.</summary>
internal sealed record StudyRequest
{
    public required ModelSettings Model { get; init; }

    public required ModelBlueprint Blueprint { get; init; }

    public required IReadOnlyList<TaskSettings> Tasks { get; init; }

    public required IReadOnlyList<StudyRow> Rows { get; init; }

    public required IReadOnlyList<ulong> Seeds { get; init; }

    /// <summary>Adapters for all layers, for a head.</summary>
    public required Func<ModelHead, LoraConfig> Lora { get; init; }

    /// <summary>How a seed is trained on a task; the folder is not that of the training yet.</summary>
    public required Func<TaskSettings, ulong, TrainerOptions> Training { get; init; }

    /// <summary>How layers are compared, by the choice and the token that ends texts.</summary>
    public required Func<SelectionOptions, int?, FeatureOptions> Features { get; init; }

    /// <summary>Rows that are compared; null for all.</summary>
    public required int? Samples { get; init; }

    public required string Output { get; init; }

    public required bool Overwrite { get; init; }

    /// <summary>The command that goes on with the study.</summary>
    public required string CommandText { get; init; }
}

/// <summary>A task of a study with its rows.</summary>
/// <param name="Key">What it is called in the study.</param>
/// <param name="Settings">Which task, and where it lies.</param>
/// <param name="Setup">Its rows.</param>
/// <param name="Examples">Its rows as tokens.</param>
/// <param name="Lora">Adapters for all layers.</param>
/// <param name="Hash">Hash of what its results depend on.</param>
internal sealed record StudyTask(string Key, TaskSettings Settings, TaskSetup Setup, TaskExamples Examples, LoraConfig Lora, string Hash)
{
    /// <summary>The metric by which runs are compared: the task's first, or the loss of a language model.</summary>
    public string Metric => Setup.Metrics?.Main ?? "loss";

    /// <summary>Metrics of the tables, the main one first; those that only combine others are left to the files.</summary>
    public IReadOnlyList<string> Metrics => Setup.Metrics is { } metrics ? [.. metrics.Names.Where(n => n != "combined_score")] : ["loss"];
}

/// <summary>A cell of the grid.</summary>
/// <param name="Task">The task.</param>
/// <param name="Row">How layers are chosen.</param>
/// <param name="Seed">The seed.</param>
/// <param name="Layers">The layers that were chosen, ascending.</param>
/// <param name="Mask">One digit a layer.</param>
internal sealed record StudyCell(StudyTask Task, StudyRow Row, ulong Seed, IReadOnlyList<int> Layers, string Mask)
{
    /// <summary>Cells with the same are trained once.</summary>
    public (string Task, string Mask, ulong Seed) Training => (Task.Key, Mask, Seed);

    /// <summary>What it was chosen within; null for a row of a ratio.</summary>
    public CellBudget? Within { get; init; }
}
