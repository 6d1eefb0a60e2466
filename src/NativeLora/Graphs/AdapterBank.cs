namespace NativeLora.Graphs;

/// <summary>What one adapter of several does at one module.</summary>
/// <param name="Adapter">Number of the adapter.</param>
/// <param name="Rank">Rank r; 0 where it has no A and B here.</param>
/// <param name="Scaling">alpha / r, or alpha / √r for rsLoRA.</param>
/// <param name="UseDora">Whether each output is scaled (DoRA).</param>
/// <param name="InFull">Whether it has a weight of its own in place of the base's (modules_to_save).</param>
/// <param name="OwnBias">Whether it has a bias of its own in place of the base's.</param>
public sealed record BankSlot(int Adapter, int Rank, float Scaling, bool UseDora = false, bool InFull = false, bool OwnBias = false);

/// <summary>
/// Several adapters over one base, by number: each module knows which of them act on it. Graphs built over a bank hold all of them; which
/// one acts is said when a batch runs, for the batch or for each of its sequences.
/// </summary>
public sealed class AdapterBank
{
    /// <summary>The number that stands for the base without an adapter.</summary>
    public const int None = -1;

    private readonly Dictionary<string, List<BankSlot>> _slots = new(StringComparer.Ordinal);

    /// <summary>Makes an empty bank.</summary>
    /// <param name="count">Adapters.</param>
    public AdapterBank(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        Count = count;
    }

    /// <summary>Adapters.</summary>
    public int Count { get; }

    /// <summary>The adapter that acts on batches that name none for their sequences; <see cref="None"/>: the base.</summary>
    public int Active { get; private set; } = None;

    /// <summary>Names of the modules that some adapter acts on.</summary>
    public IReadOnlyCollection<string> Modules => _slots.Keys;

    /// <summary>The adapters that act on a module.</summary>
    public IReadOnlyList<BankSlot> At(string module) => _slots.TryGetValue(module, out var slots) ? slots : [];

    /// <summary>Makes another adapter act, from the next run of any session over the bank.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such adapter.</exception>
    public void Switch(int adapter)
    {
        Check(adapter);
        Active = adapter;
    }

    /// <summary>Says what an adapter does at a module.</summary>
    /// <exception cref="ArgumentException">It has been said already.</exception>
    public void Add(string module, BankSlot slot)
    {
        ArgumentNullException.ThrowIfNull(slot);
        Check(slot.Adapter);
        if (!_slots.TryGetValue(module, out var slots))
            _slots[module] = slots = [];
        // They mostly come in the order of their numbers.
        if (slots.Count > 0 && slots[^1].Adapter >= slot.Adapter && slots.Any(s => s.Adapter == slot.Adapter))
            throw new ArgumentException($"adapter {slot.Adapter} has a slot at {module} already", nameof(slot));
        slots.Add(slot);
    }

    internal void Check(int adapter) => ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)(adapter + 1), (uint)(Count + 1), nameof(adapter));

    /// <summary>Name of a tensor of an adapter, such as <c>1:model.layers.0.self_attn.q_proj.lora_A.weight</c>.</summary>
    internal static string Tensor(int adapter, string key) => $"{adapter}:{key}";
}
