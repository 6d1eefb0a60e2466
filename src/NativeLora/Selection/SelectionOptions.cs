namespace NativeLora.Selection;

/// <summary>How layers are chosen.</summary>
public enum SelectionStrategy
{
    /// <summary>Lowest linear CKA between a layer's input and output (arXiv 2602.05988).</summary>
    Cka,

    /// <summary>Lowest debiased CKA.</summary>
    CkaDebiased,

    /// <summary>Lowest cosine between input and output, that is highest block influence.</summary>
    Cosine,

    /// <summary>A random choice, the same for the same seed.</summary>
    Random,

    /// <summary>The first k layers.</summary>
    First,

    /// <summary>The last k layers.</summary>
    Last,

    /// <summary>k layers spread evenly: floor((2i + 1) L / (2k)) for i = 0 … k - 1.</summary>
    Even,

    /// <summary>Every layer.</summary>
    All,

    /// <summary>No layer: only what is trained in full, such as a classifier head.</summary>
    None,

    /// <summary>Largest gradient of the layer's adapter at its beginning: see <see cref="LayerGradients"/>.</summary>
    Gradient,

    /// <summary>Largest such gradient for each byte that the layer's adapter takes in training.</summary>
    GradientPerByte,

    /// <summary>Every mask of that many layers, in a study of a model of few layers: no choice by itself.</summary>
    Exhaustive,

    /// <summary>Largest sum of 1 - CKA within a budget: see <see cref="MaskSuggestion"/>. Chosen by a <see cref="BudgetSelector"/> alone.</summary>
    Suggest,

    /// <summary>Largest sum of the norms of gradients within a budget. Chosen by a <see cref="BudgetSelector"/> alone.</summary>
    SuggestGradient,

    /// <summary>Layers given by number or as a one-hot mask.</summary>
    Explicit,
}

/// <summary>Details in which the paper's scripts differ from its text.</summary>
public enum SelectionRule
{
    /// <summary>As the paper's scripts: for encoders the lowest of the CKA order is dropped; a constant input counts as CKA 0.</summary>
    Paper,

    /// <summary>Layers whose input is constant over the samples are left out of the ranking; nothing else is dropped.</summary>
    Plain,
}

/// <summary>Kind of model, as far as the paper's rule depends on it.</summary>
public enum ModelFamily
{
    /// <summary>BERT and its relatives: the CLS token is compared.</summary>
    Encoder,

    /// <summary>Causal language models, LLaVA included: the last token is compared.</summary>
    Decoder,
}

/// <summary>What each layer is ranked by. Lists have one entry a layer.</summary>
public sealed record LayerScores
{
    /// <summary>Linear CKA; null where undefined.</summary>
    public required IReadOnlyList<double?> Cka { get; init; }

    /// <summary>CKA with the paper's clamp, ranked by under <see cref="SelectionRule.Paper"/>; if null, <see cref="Cka"/> with 0 where undefined.</summary>
    public IReadOnlyList<double>? CkaClamped { get; init; }

    /// <summary>Debiased CKA; null where undefined.</summary>
    public IReadOnlyList<double?>? CkaDebiased { get; init; }

    /// <summary>Cosine; null where undefined.</summary>
    public IReadOnlyList<double?>? Cosine { get; init; }

    /// <summary>Norm of the gradient of the layer's adapter; null where it has none.</summary>
    public IReadOnlyList<double?>? Gradient { get; init; }

    /// <summary>That norm for each byte that the adapter takes in training; null where it has none.</summary>
    public IReadOnlyList<double?>? GradientPerByte { get; init; }

    /// <summary>Whether the layer's input is constant over the samples.</summary>
    public IReadOnlyList<bool>? ConstantInput { get; init; }
}

/// <summary>Which layers to choose.</summary>
public sealed record SelectionOptions
{
    /// <summary>How layers are chosen.</summary>
    public SelectionStrategy Strategy { get; init; } = SelectionStrategy.Cka;

    /// <summary>The rule for the strategies that rank by similarity.</summary>
    public SelectionRule Rule { get; init; } = SelectionRule.Paper;

    /// <summary>Kind of model.</summary>
    public ModelFamily Family { get; init; }

    /// <summary>Share of the layers to choose, above 0 and at most 1: k = floor(ratio * L).</summary>
    public double? Ratio { get; init; }

    /// <summary>Number of layers to choose, in place of a ratio.</summary>
    public int? Count { get; init; }

    /// <summary>Seed of the random strategy.</summary>
    public ulong Seed { get; init; }

    /// <summary>For <see cref="SelectionStrategy.Explicit"/>: layer numbers such as <c>0,3,7-9</c>, or a one-hot mask of L digits.</summary>
    public string? Explicit { get; init; }

    /// <summary>Names of the strategies, as <see cref="Parse"/> reads them and reports print them.</summary>
    public static IReadOnlyList<string> StrategyNames { get; } =
        ["cka", "cka-debiased", "cosine", "random", "first", "last", "even", "all", "none", "gradient", "gradient-per-byte", "exhaustive", "suggest", "suggest-gradient"];

    /// <summary>Reads a strategy by name, or an explicit choice (<c>0,3,7-9</c> or a mask such as <c>010011</c>).</summary>
    /// <param name="text">What the user gave.</param>
    /// <exception cref="InputException">Neither.</exception>
    public static SelectionOptions Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var name = text.Trim();
        for (var i = 0; i < StrategyNames.Count; i++)
        {
            if (name.Equals(StrategyNames[i], StringComparison.OrdinalIgnoreCase))
                return new SelectionOptions { Strategy = (SelectionStrategy)i };
        }
        if (name.Length == 0 || !name.All(c => char.IsAsciiDigit(c) || c is ',' or '-' or ' '))
            throw new InputException($"\"{text}\" is no way to choose layers: give one of {string.Join(", ", StrategyNames)}, layer numbers such as 0,3,7-9, or a mask such as 010011");
        return new SelectionOptions { Strategy = SelectionStrategy.Explicit, Explicit = name };
    }

    /// <summary>The name of a strategy, such as <c>cka-debiased</c>.</summary>
    /// <param name="strategy">The strategy.</param>
    public static string NameOf(SelectionStrategy strategy) =>
        strategy == SelectionStrategy.Explicit ? "explicit" : StrategyNames[(int)strategy];
}
