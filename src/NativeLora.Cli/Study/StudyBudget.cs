using System.Globalization;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>
/// A bound on the planned cost of a training: an amount; a share of the way from the cheapest mask of one layer to all layers; or what a mask
/// takes. The last two are another amount with every task, whose rows have other lengths.
/// </summary>
internal sealed record StudyBudget
{
    private const string OfMask = "mask:";

    private StudyBudget(string text, bool isFlops) => (Text, IsFlops) = (text, isFlops);

    /// <summary>As it was given.</summary>
    public string Text { get; }

    /// <summary>Whether it bounds operations rather than bytes.</summary>
    public bool IsFlops { get; }

    private long? Amount { get; init; }

    private double? Share { get; init; }

    private string? Mask { get; init; }

    /// <summary>Such as <c>≤ 60% bytes</c>, <c>≤ bytes of 000111</c>.</summary>
    public string Label => (Mask, Share) switch
    {
        ({ } mask, _) => $"≤ {Unit} of {mask}",
        (_, not null) => $"≤ {Text} {Unit}",
        _ => $"≤ {Text}{(IsFlops ? " a step" : "")}",
    };

    private string Unit => IsFlops ? "FLOP" : "bytes";

    /// <summary>Budgets between commas, each once.</summary>
    /// <exception cref="InputException">One of them is none.</exception>
    public static IReadOnlyList<StudyBudget> Parse(string option, string? text, bool isFlops) => text is null ? []
        : [.. LoraOptions.Names(option, text).Select(part => One(option, part, isFlops)).Distinct()];

    private static StudyBudget One(string option, string text, bool isFlops)
    {
        var budget = new StudyBudget(text, isFlops);
        if (text.EndsWith('%'))
            return double.TryParse(text[..^1].Trim(), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var percent) && percent <= 100
                ? budget with { Share = percent / 100 }
                : throw new InputException($"{option} {text}: give a share from 0% (the cheapest mask of one layer) to 100% (all layers)");
        if (text.StartsWith(OfMask, StringComparison.Ordinal))
            return text.Length > OfMask.Length && text.AsSpan(OfMask.Length).IndexOfAnyExcept('0', '1') < 0
                ? budget with { Mask = text[OfMask.Length..] }
                : throw new InputException($"{option} {text}: give a mask with a digit a layer, such as mask:000111");
        return budget with { Amount = isFlops ? FlopCount.Parse(option, text) : ByteSize.Parse(option, text) };
    }

    /// <summary>Checks that it fits a model.</summary>
    public void Check(int layers)
    {
        if (Mask is { } mask)
            _ = LayerSelection.ParseLayers(mask, mask.Length == layers ? layers
                : throw new InputException($"budget {Text}: has {mask.Length} digits, and the model has {layers} layers"));
    }

    /// <summary>The bound in bytes or operations for a task.</summary>
    /// <param name="plans">Plans of the task's trainings.</param>
    /// <param name="layers">Layers of the model.</param>
    public long Resolve(BudgetSelector plans, int layers)
    {
        if (Amount is { } amount)
            return amount;
        if (Mask is { } mask)
            return Cost(plans.Plan(LayerSelection.ParseLayers(mask, layers)));
        var (least, most) = (Cost(plans.Cheapest(Cost)), Cost(plans.Plan([.. Enumerable.Range(0, layers)])));
        return least + (long)Math.Floor(Share!.Value * (most - least));
    }

    /// <summary>What it counts.</summary>
    public long Cost(TrainingCost cost) => IsFlops ? cost.FlopsPerStep : cost.Memory.Total;

    /// <summary>For the chooser of layers.</summary>
    public TrainingBudget Of(long limit) => IsFlops ? new(null, limit) : new(limit, null);

    /// <summary>An amount of what it counts, in words.</summary>
    public string Words(long amount) => IsFlops ? Ui.Flops(amount) : Ui.MiB(amount);
}

/// <summary>A cell's budget, and what the plan says of the mask that was chosen within it.</summary>
/// <param name="Budget">The budget.</param>
/// <param name="Limit">Its bound on the cell's task.</param>
/// <param name="Planned">What the mask takes of it.</param>
internal sealed record CellBudget(StudyBudget Budget, long Limit, long Planned);

/// <summary>A row that has no cell on a task.</summary>
/// <param name="Task">The task.</param>
/// <param name="Row">The row.</param>
/// <param name="Seed">The seed.</param>
/// <param name="Reason">Why.</param>
internal sealed record LeftOut(StudyTask Task, StudyRow Row, ulong Seed, string Reason);
