using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Attention;

[Collection(Cuda.Collection)]
public class AttentionTests
{
    private static readonly int[] s_mixed = [5, 0, 70, 1, 64];

    // Heads 1 to 256 wide, each class of kernels; causal, window, dropout, softcap, hidden keys. 0: none.
    public static TheoryData<int, int, int, bool, int, float, float, int> Kinds => new()
    {
        { 1, 1, 8, false, 0, 0, 0, 0 },
        { 4, 2, 1, true, 0, 0, 0, 0 },
        { 2, 1, 16, true, 0, 0.3f, 0, 0 },
        { 3, 3, 31, false, 6, 0, 0, 3 },
        { 2, 2, 32, true, 9, 0.1f, 0, 2 },
        { 2, 1, 33, true, 0, 0, 2f, 0 },
        { 2, 1, 64, true, 20, 0.2f, 3f, 5 },
        { 2, 2, 64, false, 0, 0.5f, 0, 0 },
        { 1, 1, 80, false, 30, 0, 0, 0 },
        { 2, 1, 128, true, 0, 0.1f, 0, 4 },
        { 1, 1, 200, true, 12, 0.2f, 1.5f, 3 },
    };

    private static AttentionBatch Batch(ElementType type, int heads, int kvHeads, int headDim, bool causal, int window, float dropout, float softcap, int hidden, int[]? lengths = null) =>
        new(lengths ?? s_mixed, heads, kvHeads, headDim, type)
        {
            Mask = new AttentionMask(causal, window),
            Dropout = dropout,
            Softcap = softcap,
            // The whole of the first sequence, and some of the others.
            Hides = hidden > 0 ? t => t < 5 || t % hidden == 0 : null,
        };

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void ForwardIsTheCpus(int heads, int kvHeads, int headDim, bool causal, int window, float dropout, float softcap, int hidden) =>
        Batch(ElementType.F32, heads, kvHeads, headDim, causal, window, dropout, softcap, hidden).Forward().Compare(1e-5, 2e-6);

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void GradientsAreTheCpus(int heads, int kvHeads, int headDim, bool causal, int window, float dropout, float softcap, int hidden) =>
        Batch(ElementType.F32, heads, kvHeads, headDim, causal, window, dropout, softcap, hidden).Backward(true, true, true).Compare(2e-5, 5e-6);

    // Weights and their gradients are rounded to bf16 before they are multiplied, beside the results.
    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void ForwardIsTheCpusInBrain(int heads, int kvHeads, int headDim, bool causal, int window, float dropout, float softcap, int hidden) =>
        Batch(ElementType.BF16, heads, kvHeads, headDim, causal, window, dropout, softcap, hidden).Forward().Compare(1.0 / 128, 1.0 / 512);

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void GradientsAreTheCpusInBrain(int heads, int kvHeads, int headDim, bool causal, int window, float dropout, float softcap, int hidden) =>
        Batch(ElementType.BF16, heads, kvHeads, headDim, causal, window, dropout, softcap, hidden).Backward(true, true, true).Compare(1.0 / 128, 1.0 / 128);

    [CudaTheory]
    [InlineData(ElementType.F32, 24, true, 70)]
    [InlineData(ElementType.F32, 8, false, 40)]
    [InlineData(ElementType.BF16, 24, true, 0)]
    [InlineData(ElementType.BF16, 64, true, 70)]
    [InlineData(ElementType.BF16, 128, true, 0)]
    [InlineData(ElementType.BF16, 100, false, 40)]
    public void LongSequencesSkipTiles(ElementType type, int headDim, bool causal, int window)
    {
        var batch = Batch(type, 2, 1, headDim, causal, window, 0.1f, 0, 0, [3, 200]);
        var (relative, absolute) = type == ElementType.F32 ? (2e-5, 5e-6) : (1.0 / 128, 1.0 / 128);
        batch.Forward().Compare(relative, absolute);
        batch.Backward(true, true, true).Compare(relative, absolute);
    }

    [CudaTheory]
    [InlineData(ElementType.F32, true, false, false)]
    [InlineData(ElementType.F32, false, true, false)]
    [InlineData(ElementType.F32, false, false, true)]
    [InlineData(ElementType.F32, true, true, false)]
    [InlineData(ElementType.F32, true, false, true)]
    [InlineData(ElementType.F32, false, true, true)]
    [InlineData(ElementType.BF16, true, false, false)]
    [InlineData(ElementType.BF16, false, true, false)]
    [InlineData(ElementType.BF16, false, false, true)]
    [InlineData(ElementType.BF16, true, true, false)]
    [InlineData(ElementType.BF16, true, false, true)]
    [InlineData(ElementType.BF16, false, true, true)]
    public void EachGradientAlone(ElementType type, bool query, bool key, bool value)
    {
        var batch = Batch(type, 2, 1, 16, true, 0, 0.2f, 0, 0, [4, 19]);
        batch.Backward(query, key, value).Compare(type == ElementType.F32 ? 2e-5 : 1.0 / 128, type == ElementType.F32 ? 5e-6 : 1.0 / 128);
    }

    public static TheoryData<int> Seeds => [.. Enumerable.Range(0, 24)];

    [CudaTheory]
    [MemberData(nameof(Seeds))]
    public void AnyBatch(int seed)
    {
        var random = new Random(seed);
        var type = seed % 2 == 0 ? ElementType.F32 : ElementType.BF16;
        var (kvHeads, group, headDim) = (random.Next(1, 3), random.Next(1, 4), random.Next(1, 81));
        var lengths = Enumerable.Range(0, random.Next(1, 5)).Select(_ => random.Next(0, 71)).ToArray();
        var (causal, window) = (random.Next(2) == 0, random.Next(2) * random.Next(1, 80));
        var (dropout, softcap) = (random.Next(2) * 0.4f * random.NextSingle(), random.Next(3) == 0 ? 1 + 4 * random.NextSingle() : 0);
        var batch = Batch(type, kvHeads * group, kvHeads, headDim, causal, window, dropout, softcap, random.Next(2) * random.Next(2, 6), lengths);
        var wanted = random.Next(1, 8);
        // Errors of rounded weights add up over the queries of a group's heads.
        var (relative, absolute) = type == ElementType.F32 ? (2e-5, 5e-6) : (1.0 / 128, 1.0 / 64);
        batch.Forward().Compare(relative, absolute);
        batch.Backward((wanted & 1) != 0, (wanted & 2) != 0, (wanted & 4) != 0).Compare(relative, absolute);
    }

    [CudaTheory]
    [InlineData(ElementType.F32)]
    [InlineData(ElementType.BF16)]
    public void EmptyBatches(ElementType type)
    {
        Batch(type, 2, 1, 16, true, 0, 0, 0, 0, []).Forward().Compare(0, 0);
        Batch(type, 2, 1, 16, true, 0, 0, 0, 0, [0, 0]).Forward().Compare(0, 0);
        Batch(type, 2, 1, 16, true, 0, 0, 0, 0, [0]).Backward(true, true, true).Compare(0, 0);
    }

    [CudaTheory]
    [InlineData(0, 1)]
    [InlineData(1, 17)]
    [InlineData(3, 66)]
    public void PicturesTakeThePlaceOfSequences(int pictures, int rows)
    {
        var batch = new AttentionBatch([.. Enumerable.Repeat(rows, pictures)], 2, 2, 12) { PictureRows = rows };
        batch.Forward().Compare(1e-5, 2e-6);
        batch.Backward(true, true, true).Compare(2e-5, 5e-6);
    }

    [CudaFact]
    public void SharpScores()
    {
        // Nearly all weight on one key: what is left of the others must not be noise.
        new AttentionBatch([40], 1, 1, 64) { Spread = 8 }.Forward().Compare(2e-5, 5e-6);
        new AttentionBatch([40], 1, 1, 64) { Spread = 8 }.Backward(true, true, true).Compare(1e-4, 5e-5);
    }
}
