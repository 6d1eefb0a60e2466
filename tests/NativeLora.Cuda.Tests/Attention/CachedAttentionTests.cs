using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Attention;

[Collection(Cuda.Collection)]
public class CachedAttentionTests
{
    [CudaTheory]
    [InlineData(ElementType.F32, 1, 5)]
    [InlineData(ElementType.F32, 2, 80)]
    [InlineData(ElementType.BF16, 1, 3)]
    [InlineData(ElementType.BF16, 3, 64)]
    public void AppendsBehindWhatIsThere(ElementType type, int kvHeads, int headDim)
    {
        var batch = new Batch([1, 0, 9, 3], [70, 4, 0, 1], [3, 0, 1, 2], 80, kvHeads, kvHeads, headDim, type);
        var width = kvHeads * headDim;
        var test = new OpCase(CacheAppendOp.Instance, batch.Size)
            .In(OpCase.Tokens("k", width, type), OpCase.Random((long)batch.Size.Tokens * width, 1))
            .In(OpCase.Tokens("v", width, type), OpCase.Random((long)batch.Size.Tokens * width, 2));
        batch.Boundaries(test)
            .In(OpCase.Ints("cache_slots", Shape.PerSequence(1)), batch.Slots)
            .In(OpCase.Ints("past_lengths", Shape.PerSequence(1)), batch.Past)
            .Out(batch.Cache("keys"), batch.CacheValues(3))
            .Out(batch.Cache("values"), batch.CacheValues(4))
            .Compare(0, 0);
    }

    // New tokens, those before; one or a few a sequence, and many; caches so long that keys are split.
    public static TheoryData<int[], int[], int> Batches => new()
    {
        { [1], [0], 16 },
        { [1, 1, 1], [70, 0, 5], 80 },
        { [2, 0, 3], [11, 4, 0], 80 },
        { [1, 1], [600, 130], 640 },
        { [7, 0, 30], [3, 64, 0], 80 },
        { [70, 9], [100, 0], 200 },
    };

    [CudaTheory]
    [MemberData(nameof(Batches))]
    public void IsTheCpus(int[] lengths, int[] past, int length)
    {
        Case(lengths, past, length, 4, 2, 40, 0, 0, ElementType.F32).Compare(1e-5, 2e-6);
        Case(lengths, past, length, 2, 1, 33, 12, 3, ElementType.F32).Compare(1e-5, 2e-6);
        Case(lengths, past, length, 2, 1, 128, 0, 0, ElementType.BF16).Compare(1.0 / 128, 1.0 / 512);
        Case(lengths, past, length, 2, 2, 24, 50, 2, ElementType.BF16).Compare(1.0 / 128, 1.0 / 512);
    }

    [CudaTheory]
    [InlineData(ElementType.F32, 128)]
    [InlineData(ElementType.F32, 200)]
    [InlineData(ElementType.BF16, 9)]
    [InlineData(ElementType.BF16, 64)]
    [InlineData(ElementType.BF16, 200)]
    public void EachWidth(ElementType type, int headDim)
    {
        var (relative, absolute) = type == ElementType.F32 ? (1e-5, 2e-6) : (1.0 / 128, 1.0 / 512);
        Case([20, 3], [66, 0], 100, 2, 1, headDim, 0, 0, type).Compare(relative, absolute);
        Case([1, 1], [66, 0], 100, 2, 1, headDim, 0, 0, type).Compare(relative, absolute);
    }

    private static OpCase Case(int[] lengths, int[] past, int length, int heads, int kvHeads, int headDim, int window, float softcap, ElementType type)
    {
        var batch = new Batch(lengths, past, [.. Enumerable.Range(0, lengths.Length).Reverse()], length, heads, kvHeads, headDim, type);
        var (tokens, width) = (batch.Size.Tokens, kvHeads * headDim);
        var attention = new AttentionOp(heads, kvHeads, headDim, 1 / MathF.Sqrt(headDim), new AttentionMask(true, window), 0, 0, softcap);
        // The cache holds the new keys and values already.
        var (keys, values) = (batch.CacheValues(3), batch.CacheValues(4));
        var test = new OpCase(new CachedAttentionOp(attention, length), batch.Size)
            .In(OpCase.Tokens("q", heads * headDim, type), OpCase.Random((long)tokens * heads * headDim, 1, 1.5))
            .In(OpCase.Tokens("k", width, type), batch.Newest(keys))
            .In(OpCase.Tokens("v", width, type), batch.Newest(values))
            .In(batch.Cache("keys"), keys)
            .In(batch.Cache("values"), values);
        return batch.Boundaries(test)
            .In(OpCase.Ints("key_visible", Shape.PerToken(1)), [.. Enumerable.Repeat(1, tokens)])
            .In(OpCase.Ints("cache_slots", Shape.PerSequence(1)), batch.Slots)
            .In(OpCase.Ints("past_lengths", Shape.PerSequence(1)), batch.Past)
            .Out(OpCase.Tokens("out", heads * headDim, type))
            .Work(OpCase.Tokens("lse", heads));
    }

    private sealed record Batch(int[] Lengths, int[] Past, int[] Slots, int Length, int Heads, int KvHeads, int HeadDim, ElementType Type)
    {
        public BatchSize Size => new(Lengths.Sum(), Lengths.Length, Lengths.Zip(Past, (l, p) => (long)l * (l + 2 * p)).Sum());

        private int Width => KvHeads * HeadDim;

        public Tensor Cache(string name) => OpCase.Fixed(name, Slots.Length, Length * Width, Type);

        public float[] CacheValues(int seed) => OpCase.Random((long)Slots.Length * Length * Width, seed);

        public OpCase Boundaries(OpCase test) =>
            test.In(OpCase.Ints("cu_seqlens", Shape.PerSequence(1)), [0, .. Lengths.Select((_, i) => Lengths[..(i + 1)].Sum())]);

        /// <summary>The rows of the new tokens in a cache.</summary>
        public float[] Newest(float[] cache)
        {
            var rows = new List<float>();
            for (var s = 0; s < Lengths.Length; s++)
                rows.AddRange(cache.AsSpan((Slots[s] * Length + Past[s]) * Width, Lengths[s] * Width));
            return [.. rows];
        }
    }
}
