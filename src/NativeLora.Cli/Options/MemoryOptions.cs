using System.CommandLine;
using NativeLora.Graphs;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Options;

/// <summary>How a training is made to take less memory, or some more for less time.</summary>
internal sealed class MemoryOptions
{
    private readonly Option<string> _optimizer = new("--optimizer") { Description = "adamw, or adamw8bit: its moments a byte each", DefaultValueFactory = _ => "adamw", HelpName = "NAME" };
    private readonly Option<string?> _recompute = new("--recompute") { Description = "layers whose forward is run again before their backward, rather than kept: none, all, or numbers such as 0-5 (the same bits in less memory)", HelpName = "LAYERS" };
    private readonly Option<string?> _budget = new("--memory-budget") { Description = "memory that all that is planned may take, such as 4GiB: as few layers are recomputed as that needs", HelpName = "SIZE" };

    private readonly Option<bool> _pack = new("--pack-weights") { Description = "copy frozen weights into the order that products read them in: some percent less time for their bytes once more (the same bits)" };

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])[_optimizer, _recompute, _budget, _pack])
            command.Options.Add(option);
    }

    public bool PackWeights(ParseResult parsed) => parsed.GetValue(_pack);

    public OptimizerKind Optimizer(ParseResult parsed)
    {
        var name = parsed.GetValue(_optimizer)!;
        try
        {
            return OptimizerKinds.Parse(name);
        }
        catch (InputException e)
        {
            throw new InputException($"--optimizer {name}: {e.Message}");
        }
    }

    /// <summary>The layers that were named.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="layers">Layers of the model; asked for only where they matter.</param>
    public RecomputeLayers Recompute(ParseResult parsed, Func<int> layers) => parsed.GetValue(_recompute) switch
    {
        null or "none" => RecomputeLayers.None,
        "all" => RecomputeLayers.All,
        var text => RecomputeLayers.Of(LayerSelection.ParseLayers(text, layers())),
    };

    public long? Budget(ParseResult parsed)
    {
        if (parsed.GetValue(_budget) is not { } text)
            return null;
        return parsed.GetValue(_recompute) is null ? ByteSize.Parse("--memory-budget", text)
            : throw new InputException("both --recompute and --memory-budget are given: the budget chooses the layers; give one of them");
    }
}
