using System.Runtime.Intrinsics;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): random numbers as a function of a key and a
/// counter, so that a mask is recomputed instead of stored, on any device and in any order.
/// </summary>
/// <remarks>
/// Dropout masks, the same on every device. Element i (64 bits) of stream s (32 bits) at step t (32 bits) under a 64-bit seed:
/// <list type="bullet">
/// <item>key = Mix(seed), the SplitMix64 finalizer of seed + 0x9E3779B97F4A7C15; its low half is the first key word.</item>
/// <item>counter words = (low 32 bits of i / 4, high 32 bits of i / 4, s, t); the element takes output word i % 4.</item>
/// <item>It is kept if that word (unsigned) is at least Threshold(p) = floor(p * 2^32), the product in double.</item>
/// <item>What is kept is multiplied by the float 1 / (1 - p), what is not becomes 0.</item>
/// </list>
/// Attention dropout: i = (token of the query in the batch * heads + head) * 2^20 + position of the key in its sequence.
/// </remarks>
internal static unsafe class Philox
{
    internal const uint Multiplier0 = 0xD2511F53;
    internal const uint Multiplier1 = 0xCD9E8D57;
    internal const uint Weyl0 = 0x9E3779B9;
    internal const uint Weyl1 = 0xBB67AE85;

    /// <summary>The four words of one counter. The low half of a 64-bit argument is the first of its two words.</summary>
    public static (uint, uint, uint, uint) Next(ulong key, ulong counterLow, ulong counterHigh)
    {
        uint c0 = (uint)counterLow, c1 = (uint)(counterLow >> 32), c2 = (uint)counterHigh, c3 = (uint)(counterHigh >> 32);
        uint k0 = (uint)key, k1 = (uint)(key >> 32);
        for (var round = 0; round < 10; round++)
        {
            var p0 = (ulong)Multiplier0 * c0;
            var p1 = (ulong)Multiplier1 * c2;
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            k0 += Weyl0;
            k1 += Weyl1;
        }
        return (c0, c1, c2, c3);
    }

    /// <summary>The key of a seed: near seeds get unrelated keys.</summary>
    public static ulong Mix(ulong seed)
    {
        var z = seed + 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>The least word that is kept under drop probability <paramref name="p"/>, 0 &lt;= p &lt; 1.</summary>
    public static uint Threshold(float p) => (uint)((double)p * 4294967296.0);

    /// <summary>What a kept element is multiplied by.</summary>
    public static float KeepScale(float p) => 1f / (1f - p);

    /// <summary>The random word of element <paramref name="index"/>.</summary>
    public static uint Word(ulong seed, uint stream, uint step, ulong index)
    {
        var (w0, w1, w2, w3) = Next(Mix(seed), index >> 2, stream | (ulong)step << 32);
        return (index & 3) switch { 0 => w0, 1 => w1, 2 => w2, _ => w3 };
    }

    /// <summary>Whether element <paramref name="index"/> is kept.</summary>
    public static bool Keep(ulong seed, uint stream, uint step, ulong index, uint threshold) =>
        Word(seed, stream, step, index) >= threshold;

    /// <summary>Index of the dropout element of a query (its token in the batch), a head and a key's place in its sequence.</summary>
    public static ulong AttentionIndex(int queryToken, int heads, int head, int key) =>
        (((ulong)queryToken * (uint)heads + (uint)head) << 20) + (uint)key;

    /// <summary>
    /// Fills the factors (0 or <see cref="KeepScale"/>) of <paramref name="count"/> elements from <paramref name="first"/> on.
    /// </summary>
    public static void FillMask(float* to, ulong first, int count, ulong seed, uint stream, uint step, float p, int vectorBits = 0)
    {
        var threshold = Threshold(p);
        var scale = KeepScale(p);
        var at = 0;
        for (; at < count && ((first + (uint)at) & 3) != 0; at++)
            to[at] = Keep(seed, stream, step, first + (uint)at, threshold) ? scale : 0f;
        // Words of 16 counters as four rows, one a lane of the output, then interleaved.
        const int Counters = Tile.Pad;
        var rows = stackalloc float[4 * Counters];
        for (; at + 4 * Counters <= count; at += 4 * Counters)
        {
            var block = (first + (uint)at) >> 2;
            FillTile(rows, Counters, block, 1, Counters, 1, seed, stream, step, threshold, scale, vectorBits);
            for (var c = 0; c < Counters; c += 4)
            {
                var r0 = Vector128.Load(rows + c);
                var r1 = Vector128.Load(rows + Counters + c);
                var r2 = Vector128.Load(rows + 2 * Counters + c);
                var r3 = Vector128.Load(rows + 3 * Counters + c);
                Tile.Transpose(ref r0, ref r1, ref r2, ref r3);
                r0.Store(to + at + 4 * c);
                r1.Store(to + at + 4 * c + 4);
                r2.Store(to + at + 4 * c + 8);
                r3.Store(to + at + 4 * c + 12);
            }
        }
        for (; at < count; at++)
            to[at] = Keep(seed, stream, step, first + (uint)at, threshold) ? scale : 0f;
    }

    /// <summary>
    /// Fills a tile of factors whose columns lie <paramref name="columnStep"/> counters apart and whose rows are consecutive
    /// elements, four a counter: to[(4 g + w) * lead + c] is word w of counter block + g + c * columnStep.
    /// <paramref name="columns"/> is a multiple of <see cref="Tile.Pad"/>; 4 * <paramref name="groups"/> rows are written.
    /// </summary>
    public static void FillTile(float* to, int lead, ulong block, ulong columnStep, int columns, int groups,
        ulong seed, uint stream, uint step, uint threshold, float scale, int vectorBits = 0)
    {
        var key = Mix(seed);
        var high = stream | (ulong)step << 32;
        switch (vectorBits == 0 ? AttentionKernel.WidestVector : vectorBits)
        {
            case 512:
                FillTile<Vector512<ulong>, PhiloxLanes512>(to, lead, block, columnStep, columns, groups, key, high, threshold, scale);
                break;
            case 256:
                FillTile<Vector256<ulong>, PhiloxLanes256>(to, lead, block, columnStep, columns, groups, key, high, threshold, scale);
                break;
            default:
                FillTile<Vector128<ulong>, PhiloxLanes128>(to, lead, block, columnStep, columns, groups, key, high, threshold, scale);
                break;
        }
    }

    private static void FillTile<U, L>(float* to, int lead, ulong block, ulong columnStep, int columns, int groups,
        ulong key, ulong high, uint threshold, float scale)
        where U : struct where L : struct, IPhiloxLanes<U>
    {
        var steps = stackalloc ulong[8];
        for (var i = 0; i < 8; i++)
            steps[i] = columnStep * (uint)i;
        var ramp = L.Load(steps);
        var m0 = L.Broadcast(Multiplier0);
        var m1 = L.Broadcast(Multiplier1);
        for (var c = 0; c < columns; c += 2 * L.Count)
        {
            for (var g = 0; g < groups; g++)
            {
                // Two vectors of counters at once, one word to a 64-bit lane; the upper halves may hold anything.
                var start = block + (uint)g + columnStep * (uint)c;
                var a0 = L.Add(L.Broadcast(start), ramp);
                var b0 = L.Add(L.Broadcast(start + columnStep * (uint)L.Count), ramp);
                U a1 = L.High(a0), b1 = L.High(b0);
                U a2 = L.Broadcast((uint)high), b2 = a2;
                U a3 = L.Broadcast(high >> 32), b3 = a3;
                uint k0 = (uint)key, k1 = (uint)(key >> 32);
                for (var round = 0; round < 10; round++)
                {
                    var v0 = L.Broadcast(k0);
                    var v1 = L.Broadcast(k1);
                    var p = L.Product(a0, m0);
                    var q = L.Product(a2, m1);
                    a0 = L.Xor(L.Xor(L.High(q), a1), v0);
                    a1 = q;
                    a2 = L.Xor(L.Xor(L.High(p), a3), v1);
                    a3 = p;
                    p = L.Product(b0, m0);
                    q = L.Product(b2, m1);
                    b0 = L.Xor(L.Xor(L.High(q), b1), v0);
                    b1 = q;
                    b2 = L.Xor(L.Xor(L.High(p), b3), v1);
                    b3 = p;
                    k0 += Weyl0;
                    k1 += Weyl1;
                }
                var o = to + 4 * g * (nint)lead + c;
                L.StoreFactors(a0, b0, threshold, scale, o);
                L.StoreFactors(a1, b1, threshold, scale, o + lead);
                L.StoreFactors(a2, b2, threshold, scale, o + 2 * (nint)lead);
                L.StoreFactors(a3, b3, threshold, scale, o + 3 * (nint)lead);
            }
        }
    }
}
