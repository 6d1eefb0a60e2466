using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Serving;

namespace NativeLora.Hosting;

/// <summary>
/// What the sessions of a hosted model run, for the adapters that there are now. When one comes or goes there is another plan; the former
/// stays until the last lane has left it.
/// </summary>
internal sealed class ServingPlan(AdapterSet? set, MemoryPlan plan, Tensor output, IReadOnlyList<HostedAdapter> adapters)
{
    private readonly Dictionary<HostedAdapter, int> _numbers = adapters.Select((a, i) => (a, i)).ToDictionary(p => p.a, p => p.i);
    private readonly Dictionary<string, HostedAdapter> _names = adapters.ToDictionary(a => a.Name, StringComparer.Ordinal);
    private int _holders = 1;

    /// <summary>The adapters' tensors; null where there never was one.</summary>
    public AdapterSet? Set { get; } = set;

    public MemoryPlan Plan { get; } = plan;

    /// <summary>What is read: a row for each sequence.</summary>
    public Tensor Output { get; } = output;

    public IReadOnlyList<HostedAdapter> Adapters { get; } = adapters;

    public IReadOnlyList<string> Names { get; } = [.. adapters.Select(a => a.Name)];

    public HostedAdapter? Find(string name) => _names.GetValueOrDefault(name);

    /// <summary>The number of an adapter in batches; <see cref="AdapterBank.None"/> for the model itself.</summary>
    public bool TryNumber(HostedAdapter adapter, out int number)
    {
        number = AdapterBank.None;
        return adapter.Name.Length == 0 || _numbers.TryGetValue(adapter, out number);
    }

    public void Hold() => Interlocked.Increment(ref _holders);

    /// <summary>The last one frees the adapters' tensors.</summary>
    public void LetGo()
    {
        if (Interlocked.Decrement(ref _holders) == 0)
            Set?.Dispose();
    }
}
