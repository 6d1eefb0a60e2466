using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

/// <summary>What the cases of this area share.</summary>
internal static class Values
{
    /// <summary>One place of bf16 at the most: two sums that differ by a rounding of fp32 may round to neighbours.</summary>
    public const double Place = 1.0 / 128;

    public static BatchSize Batch(int tokens) => new(tokens, 1, (long)tokens * tokens);

    /// <summary>Random values that bf16 holds, so that no device rounds them.</summary>
    public static float[] Brain(long count, int seed, double spread = 1)
    {
        var values = OpCase.Random(count, seed, spread);
        for (var i = 0; i < values.Length; i++)
            values[i] = BitConverter.UInt32BitsToSingle((BitConverter.SingleToUInt32Bits(values[i]) + 0x8000) & 0xffff0000);
        return values;
    }

    /// <summary>Rows or blocks of a block type with random bits and factors of ordinary size.</summary>
    public static byte[] Blocks(ElementType type, long count, int seed)
    {
        var (values, bytes) = ElementTypes.Block(type);
        var data = new byte[count / values * bytes];
        var random = new Random(seed);
        random.NextBytes(data);
        int[] factors = type switch
        {
            ElementType.Q6_K => [208],
            ElementType.Q4_1 or ElementType.Q5_1 or ElementType.Q4_K or ElementType.Q5_K => [0, 2],
            _ => [0],
        };
        for (var block = 0; block < data.Length; block += bytes)
            foreach (var factor in factors)
                BitConverter.TryWriteBytes(data.AsSpan(block + factor), (Half)(0.02 * (random.NextDouble() - 0.4)));
        return data;
    }

    /// <summary>Lets batches of so many rows take the fused kernels; as it was, when disposed.</summary>
    public static IDisposable FusedFrom(int rows) => new Fused(rows);

    private sealed class Fused : IDisposable
    {
        private readonly int _before = Cuda.Device.LeastFusedRows;

        public Fused(int rows) => Cuda.Device.LeastFusedRows = rows;

        public void Dispose() => Cuda.Device.LeastFusedRows = _before;
    }
}
