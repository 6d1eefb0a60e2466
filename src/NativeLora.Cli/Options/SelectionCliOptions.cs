using System.CommandLine;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli.Options;

/// <summary>Which layers get adapters.</summary>
internal sealed class SelectionCliOptions
{
    private readonly Option<string> _strategy = new("--strategy")
    {
        Description = $"{string.Join(", ", SelectionOptions.StrategyNames)}, layer numbers such as 3,4,5, or a mask such as 000111",
        DefaultValueFactory = _ => "cka",
        HelpName = "HOW",
    };

    private readonly Option<double?> _ratio = new("--ratio") { Description = "share of the layers to adapt (default: 0.5)", HelpName = "X" };
    private readonly Option<string?> _bytes = new("--budget-bytes")
    {
        Description = "planned bytes of the training within which the strategy takes as many layers as fit, in place of --ratio; suggest and suggest-gradient need a budget",
        HelpName = "SIZE",
    };

    private readonly Option<string?> _flops = new("--budget-flops") { Description = "the same for the operations of a step, such as 250G", HelpName = "N" };

    private readonly Option<string> _rule = new("--rule")
    {
        Description = "paper: as the paper's scripts do it; plain: without their accidents",
        DefaultValueFactory = _ => "paper",
        HelpName = "RULE",
    };

    private readonly Option<string?> _token = new("--token")
    {
        Description = $"token that is compared: {string.Join(", ", TokenRules.Names)} (default: the rule's)",
        HelpName = "TOKEN",
    };

    private readonly Option<int?> _samples = new("--samples")
    {
        Description = "training rows that are compared, from the first (default: all for encoders, 128 for decoders)",
        HelpName = "N",
    };

    private readonly Option<int> _bootstrap = new("--bootstrap") { Description = "resamples that show how firm the choice is; 0 for none", DefaultValueFactory = _ => 100, HelpName = "N" };
    private readonly Option<string?> _selection = new("--selection") { Description = "selection.json of an earlier selection, in place of a new one", HelpName = "FILE" };

    public void AddTo(Command command, bool reuse = true)
    {
        foreach (var option in (Option[])[_strategy, _ratio, _bytes, _flops, _rule, _token, _samples, _bootstrap])
            command.Options.Add(option);
        if (reuse)
            command.Options.Add(_selection);
    }

    /// <summary>Only how layers are compared, for a command that names its own strategies and ratios.</summary>
    public void AddComparisonTo(Command command)
    {
        foreach (var option in (Option[])[_rule, _token, _samples])
            command.Options.Add(option);
    }

    /// <summary>File of an earlier selection; null for a new one.</summary>
    public string? Reused(ParseResult parsed) => parsed.GetValue(_selection);

    public int Resamples(ParseResult parsed)
    {
        var resamples = parsed.GetValue(_bootstrap);
        return resamples is >= 0 and <= 100_000 ? resamples : throw new InputException($"--bootstrap {resamples}: give 0 to 100000 resamples");
    }

    /// <summary>Rows to compare; null for all.</summary>
    public int? Samples(ParseResult parsed, Model model) => parsed.GetValue(_samples) switch
    {
        < 2 and var few => throw new InputException($"--samples {few}: give at least 2"),
        null => model.IsEncoder ? null : 128,
        var n => n,
    };

    /// <summary>What the training may take; null where a ratio counts.</summary>
    public TrainingBudget? Budget(ParseResult parsed)
    {
        var (bytes, flops) = (parsed.GetValue(_bytes), parsed.GetValue(_flops));
        return bytes is null && flops is null ? null
            : new TrainingBudget(bytes is null ? null : ByteSize.Parse("--budget-bytes", bytes), flops is null ? null : FlopCount.Parse("--budget-flops", flops));
    }

    public SelectionOptions Read(ParseResult parsed, Model model, ulong seed)
    {
        var strategy = SelectionOptions.Parse(parsed.GetValue(_strategy)!);
        if (strategy.Strategy == SelectionStrategy.Exhaustive)
            throw new InputException("--strategy exhaustive is every mask of a size: give it to nativelora study --strategies, or choose another strategy");
        if (!TakesRatio(strategy) && parsed.GetValue(_ratio) is { } useless)
            throw new InputException($"--ratio {useless} has no meaning with --strategy {parsed.GetValue(_strategy)}: leave it out");
        if (Budget(parsed) is null)
            return strategy.Strategy is SelectionStrategy.Suggest or SelectionStrategy.SuggestGradient
                ? throw new InputException($"--strategy {SelectionOptions.NameOf(strategy.Strategy)} is the best mask within a budget: give --budget-bytes or --budget-flops")
                : Read(parsed, strategy, parsed.GetValue(_ratio) ?? 0.5, model, seed);
        var option = parsed.GetValue(_bytes) is null ? "--budget-flops" : "--budget-bytes";
        if (parsed.GetValue(_ratio) is not null)
            throw new InputException($"both --ratio and {option} are given: give one of them");
        return TakesRatio(strategy) ? Read(parsed, strategy, null, model, seed)
            : throw new InputException($"{option} has no meaning with --strategy {parsed.GetValue(_strategy)}: leave it out");
    }

    /// <summary>Whether a strategy chooses a share of the layers.</summary>
    public static bool TakesRatio(SelectionOptions options) =>
        options.Strategy is not (SelectionStrategy.All or SelectionStrategy.None or SelectionStrategy.Explicit);

    /// <summary>A strategy completed by what the command line says about comparing; the ratio counts where it has a meaning.</summary>
    public SelectionOptions Read(ParseResult parsed, SelectionOptions strategy, double? ratio, Model model, ulong seed)
    {
        var rule = parsed.GetValue(_rule) switch
        {
            "paper" => SelectionRule.Paper,
            "plain" => SelectionRule.Plain,
            var other => throw new InputException($"--rule {other}: give paper or plain"),
        };
        return strategy with
        {
            Rule = rule,
            Family = model.IsEncoder ? ModelFamily.Encoder : ModelFamily.Decoder,
            Ratio = TakesRatio(strategy) ? ratio : null,
            Seed = seed,
        };
    }

    public FeatureOptions Features(ParseResult parsed, SelectionOptions options, int? endOfText)
    {
        TokenRule? token = parsed.GetValue(_token) is { } name ? TokenRules.Parse(name) : null;
        if (token == TokenRule.Content && options.Family == ModelFamily.Encoder)
            throw new InputException("--token content is for instruction data on decoders: give cls, last or mean");
        return FeatureOptions.For(options.Family, options.Rule, token, endOfText);
    }
}
