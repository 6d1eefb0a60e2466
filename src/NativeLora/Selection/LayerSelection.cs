using System.Globalization;
using NativeLora.Data;

namespace NativeLora.Selection;

/// <summary>The layers that get adapters.</summary>
public sealed record LayerSelection
{
    /// <summary>Number of layers of the model, L.</summary>
    public required int Layers { get; init; }

    /// <summary>The ranking, first choice first. Layers left out of it are in <see cref="LeftOut"/>.</summary>
    public required IReadOnlyList<int> Order { get; init; }

    /// <summary>The chosen layers, in the order of the ranking.</summary>
    public required IReadOnlyList<int> Selected { get; init; }

    /// <summary>The layer that the paper's rule for encoders drops from the head of the order; null otherwise.</summary>
    public int? DroppedFirst { get; init; }

    /// <summary>Layers that the plain rule left out of the ranking, since their input is constant over the samples.</summary>
    public IReadOnlyList<int> LeftOut { get; init; } = [];

    /// <summary>One digit a layer, 1 for a chosen one.</summary>
    public string Mask => MaskOf(Selected, Layers);

    /// <summary>The lowest chosen layer, where the backward pass may stop; null if none is chosen.</summary>
    public int? LowestAdaptedLayer => Selected.Count == 0 ? null : Selected.Min();

    /// <summary>Chooses layers by similarity scores. See <see cref="Select(int, LayerScores, SelectionOptions)"/>.</summary>
    /// <param name="similarities">Measures of all layers.</param>
    /// <param name="options">What to choose.</param>
    public static LayerSelection Select(LayerSimilarities similarities, SelectionOptions options)
    {
        ArgumentNullException.ThrowIfNull(similarities);
        return Select(similarities.Layers, similarities.Scores, options);
    }

    /// <summary>
    /// Chooses layers. The strategies that rank (cka, cka-debiased, cosine) take the lowest scores first, equal ones in layer order,
    /// undefined ones as the lowest; gradient and gradient-per-byte take the highest first and never an undefined one. Rule paper (arXiv 2602.05988, as its scripts do it): k = floor(ratio L); for encoders ranked by CKA
    /// order[1 … k], dropping the first of the order, else order[0 … k - 1].
    /// </summary>
    /// <param name="layers">Number of layers, L.</param>
    /// <param name="scores">Scores; needed by the strategies that rank only.</param>
    /// <param name="options">What to choose.</param>
    /// <exception cref="InputException">The options do not fit the model, or choose nothing.</exception>
    public static LayerSelection Select(int layers, LayerScores? scores, SelectionOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (layers < 1)
            throw new InputException($"a model of {layers} layers has none to choose");
        CheckAmounts(options, layers);
        return options.Strategy switch
        {
            SelectionStrategy.All => Whole(layers, Enumerable.Range(0, layers)),
            SelectionStrategy.None => Whole(layers, []),
            SelectionStrategy.Explicit => Whole(layers, ParseLayers(options.Explicit ?? "", layers)),
            SelectionStrategy.First => Head(layers, Enumerable.Range(0, layers), Amount(options, layers)),
            SelectionStrategy.Last => Head(layers, Enumerable.Range(0, layers).Reverse(), Amount(options, layers)),
            SelectionStrategy.Random => Head(layers, new SplitMix64(options.Seed).Permutation(layers), Amount(options, layers)),
            SelectionStrategy.Even => Whole(layers, Evenly(layers, Amount(options, layers))),
            SelectionStrategy.Gradient or SelectionStrategy.GradientPerByte =>
                Ranked(layers, scores ?? throw new InputException($"strategy {SelectionOptions.NameOf(options.Strategy)} needs the gradient of each layer: measure the layers first"), options),
            SelectionStrategy.Exhaustive => throw new InputException("strategy exhaustive is every mask of a size, which only a study tries: give it to study --strategies, or choose another strategy"),
            SelectionStrategy.Suggest or SelectionStrategy.SuggestGradient => throw new InputException(
                $"strategy {SelectionOptions.NameOf(options.Strategy)} is the best mask within a budget: give a study --budget-bytes or --budget-flops, or ask nativelora memory --suggest"),
            SelectionStrategy.Cka or SelectionStrategy.CkaDebiased or SelectionStrategy.Cosine =>
                Ranked(layers, scores ?? throw new InputException($"strategy {SelectionOptions.NameOf(options.Strategy)} needs the similarity of each layer: score the layers first"), options),
            _ => throw new InputException($"unknown strategy {options.Strategy}"),
        };
    }

    /// <summary>Reads layer numbers such as <c>0,3,7-9</c>, or a one-hot mask of exactly <paramref name="layers"/> digits.</summary>
    /// <param name="text">What the user gave. Several digits 0 and 1 are a mask if they are as many as layers or begin with 0.</param>
    /// <param name="layers">Number of layers, L.</param>
    /// <returns>Layer numbers, ascending.</returns>
    /// <exception cref="InputException">A mask of the wrong length, a layer out of range, or anything else.</exception>
    public static IReadOnlyList<int> ParseLayers(string text, int layers)
    {
        ArgumentNullException.ThrowIfNull(text);
        text = text.Trim();
        if (text.Length > 1 && text.All(c => c is '0' or '1') && (text.Length == layers || text[0] == '0' || text.Length > 4))
        {
            if (text.Length != layers)
                throw new InputException($"mask {text} has {text.Length} digits, but the model has {layers} layers: give one digit a layer");
            return Chosen([.. Enumerable.Range(0, layers).Where(l => text[l] == '1')], text);
        }
        var chosen = new SortedSet<int>();
        foreach (var part in text.Split(','))
        {
            var ends = part.Split('-');
            if (ends.Length > 2 || !Number(ends[0], out var from) || !Number(ends[^1], out var to) || from > to)
                throw new InputException($"\"{part.Trim()}\" in layers \"{text}\" is no layer number: give numbers such as 0,3,7-9, or a mask of {layers} digits");
            if (to >= layers)
                throw new InputException($"layer {to} in \"{text}\" is out of range: the model has layers 0 to {layers - 1}");
            for (var l = from; l <= to; l++)
                chosen.Add(l);
        }
        return Chosen([.. chosen], text);

        static bool Number(string digits, out int value) => int.TryParse(digits.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out value);

        static IReadOnlyList<int> Chosen(int[] found, string text) =>
            found.Length > 0 ? found : throw new InputException($"mask {text} chooses no layer: use the strategy none to adapt no layer");
    }

    internal static string MaskOf(IEnumerable<int> selected, int layers)
    {
        var mask = new string('0', layers).ToCharArray();
        foreach (var layer in selected)
            mask[layer] = '1';
        return new string(mask);
    }

    /// <summary>k = floor(ratio L), or the count that was given.</summary>
    internal static int Amount(SelectionOptions options, int layers)
    {
        if (options.Count is { } count)
            return count;
        if (options.Ratio is not { } ratio)
            throw new InputException($"strategy {SelectionOptions.NameOf(options.Strategy)} needs a ratio or a number of layers");
        var k = (int)Math.Floor(ratio * layers);
        return k > 0 ? k : throw new InputException(string.Create(CultureInfo.InvariantCulture,
            $"ratio {ratio} of {layers} layers chooses none: give at least {1.0 / layers:0.####}, or the strategy none"));
    }

    /// <summary>Checks, before anything is measured, that the options fit a model and choose something.</summary>
    internal static void CheckOptions(SelectionOptions options, int layers)
    {
        CheckAmounts(options, layers);
        _ = Amount(options, layers);
    }

    private static void CheckAmounts(SelectionOptions options, int layers)
    {
        if (options.Ratio is { } ratio && !(ratio > 0 && ratio <= 1))
            throw new InputException(string.Create(CultureInfo.InvariantCulture, $"ratio {ratio} of layers: it must be above 0 and at most 1"));
        if (options.Count is { } count && (count < 1 || count > layers))
            throw new InputException($"{count} layers asked for, but the model has {layers}: give 1 to {layers}");
        if (options is { Ratio: not null, Count: not null })
            throw new InputException("both a ratio and a number of layers are given: give one of them");
    }

    private static LayerSelection Ranked(int layers, LayerScores scores, SelectionOptions options)
    {
        var byGradient = options.Strategy is SelectionStrategy.Gradient or SelectionStrategy.GradientPerByte;
        var values = ScoresFor(layers, scores, options);
        var k = Amount(options, layers);
        if (byGradient)
        {
            var largest = Enumerable.Range(0, layers).Where(l => values[l] is not null).OrderByDescending(l => values[l]).ToArray();
            return new LayerSelection
            {
                Layers = layers,
                Order = largest,
                Selected = largest.Take(k).ToArray(),
                LeftOut = [.. Enumerable.Range(0, layers).Where(l => values[l] is null)],
            };
        }
        var constant = scores.ConstantInput;
        int[] leftOut = options.Rule == SelectionRule.Plain && constant is not null ? [.. Enumerable.Range(0, layers).Where(l => constant[l])] : [];
        // OrderBy is stable: equal scores stay in layer order.
        var order = Enumerable.Range(0, layers).Except(leftOut).OrderBy(l => values[l] ?? double.NegativeInfinity).ToArray();
        var drop = options is { Rule: SelectionRule.Paper, Family: ModelFamily.Encoder } && options.Strategy != SelectionStrategy.Cosine ? 1 : 0;
        var selected = order.Skip(drop).Take(k).ToArray();
        if (selected.Length == 0)
            throw new InputException(leftOut.Length > 0
                ? "every layer's input is constant over the samples, so none can be ranked: use other samples, another token, or another strategy"
                : "rule paper drops the only layer there is: use rule plain or another strategy");
        return new LayerSelection { Layers = layers, Order = order, Selected = selected, DroppedFirst = drop == 1 ? order[0] : null, LeftOut = leftOut };
    }

    private static IReadOnlyList<double?> ScoresFor(int layers, LayerScores scores, SelectionOptions options)
    {
        var name = SelectionOptions.NameOf(options.Strategy);
        var values = options.Strategy switch
        {
            SelectionStrategy.Cosine => scores.Cosine,
            SelectionStrategy.CkaDebiased => scores.CkaDebiased,
            SelectionStrategy.Gradient => scores.Gradient,
            SelectionStrategy.GradientPerByte => scores.GradientPerByte,
            _ => scores.Cka,
        };
        if (values is null)
            throw new InputException($"strategy {name} needs scores that were not computed");
        if (values.Count != layers || (scores.CkaClamped?.Count ?? layers) != layers || (scores.ConstantInput?.Count ?? layers) != layers)
            throw new InputException($"{values.Count} scores for strategy {name}, but the model has {layers} layers");
        if (values.Any(v => v is { } score && !double.IsFinite(score)))
            throw new InputException($"a score for strategy {name} is not finite: leave it undefined instead");
        if (values.All(v => v is null))
            throw new InputException($"no layer has a defined score for strategy {name}: use more and different samples, or another strategy");
        if (options is not { Strategy: SelectionStrategy.Cka, Rule: SelectionRule.Paper })
            return values;
        return scores.CkaClamped is { } clamped ? [.. clamped.Select(v => (double?)v)] : [.. values.Select(v => (double?)(v ?? 0))];
    }

    private static IEnumerable<int> Evenly(int layers, int k) => Enumerable.Range(0, k).Select(i => (int)((2L * i + 1) * layers / (2L * k)));

    private static LayerSelection Head(int layers, IEnumerable<int> order, int k)
    {
        int[] ranking = [.. order];
        return new LayerSelection { Layers = layers, Order = ranking, Selected = ranking[..k] };
    }

    private static LayerSelection Whole(int layers, IEnumerable<int> chosen)
    {
        int[] selected = [.. chosen];
        return new LayerSelection { Layers = layers, Order = selected, Selected = selected };
    }
}
