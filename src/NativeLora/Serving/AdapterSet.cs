using System.Globalization;
using NativeLora.Adapters;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Serving;

/// <summary>An adapter with a name of its own.</summary>
/// <param name="Name">What it is called in its <see cref="AdapterSet"/>.</param>
/// <param name="Config">Its settings.</param>
/// <param name="Weights">Its tensors.</param>
public sealed record NamedAdapter(string Name, LoraConfig Config, AdapterWeights Weights);

/// <summary>
/// Several adapters over one base, for inference: of different ranks, targets and layers, each with a head of its own if it has one. All of
/// them are in memory and in every graph, so that another one acts from the next run on, without a weight copied or a plan made; and the
/// sequences of one batch may each have another one, or none.
/// </summary>
public sealed class AdapterSet : IDisposable
{
    private readonly AdapterBank _bank;
    private readonly Trainables _trainables;
    private readonly IReadOnlyList<AdapterBlock> _blocks;
    private readonly string[] _names;
    private readonly Dictionary<string, int> _numbers = new(StringComparer.Ordinal);
    private readonly List<string> _warnings = [];
    private bool _disposed;

    /// <summary>Takes adapters.</summary>
    /// <param name="pretrained">The base; stays open as long as this.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="adapters">The adapters; those that begin as a part of the base (PiSSA, OLoRA) are taken as plain LoRA over it.</param>
    /// <exception cref="InputException">An adapter does not fit the model, or holds what cannot be switched, or a name is given twice.</exception>
    public AdapterSet(PretrainedModel pretrained, ModelHead head, IReadOnlyList<NamedAdapter> adapters)
        : this(pretrained, head, Blocks(pretrained, head, adapters)) { }

    /// <summary>Takes adapters that are in memory, and lets go of them where they cannot be taken.</summary>
    internal AdapterSet(PretrainedModel pretrained, ModelHead head, IReadOnlyList<AdapterBlock> blocks)
    {
        (Pretrained, Head, _blocks) = (pretrained, head, blocks);
        _names = [.. blocks.Select(b => b.Name)];
        _bank = new AdapterBank(blocks.Count);
        _trainables = Trainables.Several(_bank);
        try
        {
            for (var number = 0; number < blocks.Count; number++)
            {
                if (!_numbers.TryAdd(_names[number], number))
                    throw new InputException($"two adapters are called \"{_names[number]}\"; give each a name of its own");
                foreach (var (module, slot) in blocks[number].Slots)
                    _bank.Add(module, slot with { Adapter = number });
            }
            var graph = pretrained.NewGraph(_trainables);
            pretrained.Model.Build(graph, new BuildOptions { Head = head, MaxLength = 1 });
            pretrained.Weights.Check(graph);
            Parameters = ParameterStore.Over(pretrained.Device, graph, Place);
            for (var number = 0; number < blocks.Count; number++)
                if (blocks[number].Places.Keys.FirstOrDefault(k => !Parameters.Has(AdapterBank.Tensor(number, k))) is { } lost)
                    throw new InputException($"adapter \"{_names[number]}\": {lost} has no place in a set of adapters; merge this adapter into the base");
        }
        catch
        {
            LetGo();
            throw;
        }
    }

    /// <summary>Reads adapters.</summary>
    /// <param name="pretrained">The base; stays open as long as this.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="folders">Name and folder of each.</param>
    /// <exception cref="InputException">A file is missing or malformed, or an adapter does not fit.</exception>
    public static AdapterSet Open(PretrainedModel pretrained, ModelHead head, params IEnumerable<(string Name, string Folder)> folders)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        var modules = pretrained.Modules(head);
        var warnings = new List<string>();
        // One at a time: what is read of a file is done with once it is on the device.
        var set = new AdapterSet(pretrained, head, Blocks(pretrained, head, folders.Select(f =>
        {
            var loaded = AdapterFile.Load(f.Folder, modules);
            warnings.AddRange(loaded.Warnings.Select(w => $"adapter \"{f.Name}\": {w}"));
            return new NamedAdapter(f.Name, loaded.Config, loaded.Weights);
        })));
        set._warnings.AddRange(warnings);
        return set;
    }

    /// <summary>The same adapters and one more. No tensor is copied; sessions are made anew over the set that this gives.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <returns>A set that holds the adapters of its own accord: this one may be disposed of.</returns>
    /// <exception cref="InputException">It does not fit the model, or holds what cannot be switched, or there is one of its name.</exception>
    public AdapterSet With(NamedAdapter adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        ObjectDisposedException.ThrowIf(_disposed, this);
        return With(AdapterBlock.Of(Pretrained, Head, Pretrained.Modules(Head), adapter));
    }

    /// <summary>The same adapters and a block, which becomes the set's.</summary>
    internal AdapterSet With(AdapterBlock block)
    {
        foreach (var held in _blocks)
            held.Hold();
        return new AdapterSet(Pretrained, Head, [.. _blocks, block]);
    }

    /// <summary>The same adapters but one. No tensor is copied; those of the one are freed with the last set that has it.</summary>
    /// <param name="name">Its name.</param>
    /// <returns>A set that holds the adapters of its own accord: this one may be disposed of.</returns>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public AdapterSet Without(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        ObjectDisposedException.ThrowIf(_disposed, this);
        var number = NumberOf(name);
        AdapterBlock[] left = [.. _blocks.Where((_, i) => i != number)];
        foreach (var held in left)
            held.Hold();
        return new AdapterSet(Pretrained, Head, left);
    }

    /// <summary>The base.</summary>
    public PretrainedModel Pretrained { get; }

    /// <summary>What stands on top.</summary>
    public ModelHead Head { get; }

    /// <summary>Names of the adapters, in the order of their numbers.</summary>
    public IReadOnlyList<string> Names => _names;

    /// <summary>One line each, on what an adapter's files lack or name in vain.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>The adapter that acts on batches that name none; null: the base as it is, which is what a set begins with.</summary>
    public string? Active => _bank.Active == AdapterBank.None ? null : _names[_bank.Active];

    /// <summary>The adapters' tensors.</summary>
    public ParameterStore Parameters { get; }

    /// <summary>Bytes of an adapter's tensors.</summary>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public long BytesOf(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return _blocks[NumberOf(name)].Values.Bytes;
    }

    /// <summary>Makes another adapter act, from the next run of every session of the set on; null: none. Only a number changes.</summary>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public void Switch(string? name) => _bank.Switch(NumberOf(name));

    /// <summary>The number of an adapter; <see cref="AdapterBank.None"/> for null.</summary>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public int NumberOf(string? name)
    {
        if (name is null)
            return AdapterBank.None;
        return _numbers.TryGetValue(name, out var number) ? number
            : throw new InputException($"there is no adapter \"{name}\" here; there are {(_names.Length == 0 ? "none" : string.Join(", ", _names))}");
    }

    /// <summary>Numbers for <see cref="Session.Load(Data.PackedBatch, ReadOnlySpan{int})"/>, one for each sequence of a batch; null for the base.</summary>
    /// <exception cref="InputException">There is no adapter of a name.</exception>
    public int[] Rows(params IEnumerable<string?> names) => [.. names.Select(NumberOf)];

    /// <summary>A graph with all adapters in it.</summary>
    /// <param name="options">What it is built for; the head is the set's.</param>
    public (Graph Graph, ModelOutputs Outputs) Build(BuildOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        var graph = Pretrained.NewGraph(_trainables);
        return (graph, Pretrained.Model.Build(graph, options with { Head = Head }));
    }

    /// <summary>A session over the set.</summary>
    public Session NewSession(Graph graph, BatchSize capacity) =>
        new(Pretrained.Device, MemoryPlan.For(graph, capacity), Pretrained.Weights, Parameters);

    /// <summary>Where a tensor of the graph lies: the number before its name says in whose block.</summary>
    private (DeviceBuffer Block, long Offset) Place(string tensor, Shape shape)
    {
        var colon = tensor.IndexOf(':');
        var block = _blocks[int.Parse(tensor.AsSpan(0, colon), CultureInfo.InvariantCulture)];
        var key = tensor[(colon + 1)..];
        var (offset, rows, columns) = block.Places[key];
        return (long)rows * columns == (long)shape.FixedRows * shape.Columns ? (block.Values, offset)
            : throw new InputException($"adapter \"{block.Name}\": {key} is {rows} x {columns}, but the model takes {shape.FixedRows} x {shape.Columns}; it belongs to another model");
    }

    private static List<AdapterBlock> Blocks(PretrainedModel pretrained, ModelHead head, IEnumerable<NamedAdapter> adapters)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        ArgumentNullException.ThrowIfNull(adapters);
        var blocks = new List<AdapterBlock>();
        var modules = pretrained.Modules(head);
        try
        {
            foreach (var adapter in adapters)
                blocks.Add(AdapterBlock.Of(pretrained, head, modules, adapter));
            return blocks;
        }
        catch
        {
            blocks.ForEach(b => b.LetGo());
            throw;
        }
    }

    private void LetGo()
    {
        foreach (var block in _blocks)
            block.LetGo();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        LetGo();
        Parameters.Dispose();
    }
}
