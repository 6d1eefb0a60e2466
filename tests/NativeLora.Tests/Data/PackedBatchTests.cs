using CsCheck;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class PackedBatchTests
{
    private const int None = InstructionPrompt.IgnoredLabel;

    [Fact]
    public void Sequences_lie_one_after_another_with_shifted_labels()
    {
        EncodedExample[] examples =
        [
            EncodedExample.Causal([5, 6, 2, 7, 2], [None, 6, 2, 7, 2], poolIndex: 3),
            EncodedExample.Causal([9], [9], poolIndex: 0),
            EncodedExample.Text(new([1, 3, 4], [0, 0, 1]), label: 2, score: 1.5f, poolIndex: 1),
        ];
        var batch = new PackedBatch(10, 4);
        new BatchPacker(hiddenKeyId: 2).Fill(batch, examples, [2, 0, 1]);

        Assert.Equal((9, 3, 5, 4), (batch.TokenCount, batch.SequenceCount, batch.LongestSequence, batch.LabelCount));
        Assert.Equal([1, 3, 4, 5, 6, 2, 7, 2, 9], batch.TokenIds[..9]);
        Assert.Equal([0, 0, 1, 0, 0, 0, 0, 0, 0], batch.TypeIds[..9]);
        Assert.Equal([0, 1, 2, 0, 1, 2, 3, 4, 0], batch.Positions[..9]);
        Assert.Equal([1, 1, 1, 1, 1, 0, 1, 0, 1], batch.KeyVisible[..9]);
        Assert.Equal([None, None, None, 6, 2, 7, 2, None, None], batch.Labels[..9]);
        Assert.Equal([0, 3, 8, 9], batch.CuSeqlens[..4]);
        Assert.Equal([2, None, None], batch.ClassLabels[..3]);
        Assert.Equal([1.5f, float.NaN, float.NaN], batch.Targets[..3]);
        Assert.Equal([1, 6, 8], batch.PoolIndex[..3]);
    }

    [Fact]
    public void A_batch_used_again_is_as_a_new_one() =>
        Gen.Select(Gen.Int[1, 9].Array[1, 6], Gen.Int[1, 9].Array[1, 6], Gen.ULong).Sample((first, second, seed) =>
        {
            var random = new SplitMix64(seed);
            var examples = first.Concat(second).Select(n => Example(random, n)).ToArray();
            int[] before = [.. Enumerable.Range(0, first.Length)], after = [.. Enumerable.Range(first.Length, second.Length)];
            PackedBatch used = new(60, 6), fresh = new(60, 6);
            var packer = new BatchPacker(hiddenKeyId: 0);
            packer.Fill(used, examples, before);
            packer.Fill(used, examples, after);
            packer.Fill(fresh, examples, after);

            var (t, s) = (fresh.TokenCount, fresh.SequenceCount);
            Assert.Equal((t, s, fresh.LongestSequence, fresh.LabelCount), (used.TokenCount, used.SequenceCount, used.LongestSequence, used.LabelCount));
            Assert.Equal(fresh.TokenIds[..t], used.TokenIds[..t]);
            Assert.Equal(fresh.Positions[..t], used.Positions[..t]);
            Assert.Equal(fresh.KeyVisible[..t], used.KeyVisible[..t]);
            Assert.Equal(fresh.Labels[..t], used.Labels[..t]);
            Assert.Equal(fresh.CuSeqlens[..(s + 1)], used.CuSeqlens[..(s + 1)]);
            Assert.Equal(fresh.PoolIndex[..s], used.PoolIndex[..s]);
            Assert.Equal(second.Sum(), t);
            Assert.Equal(fresh.Labels[..t].Count(l => l != None), fresh.LabelCount);
        }, iter: 200, threads: 1);

    [Fact]
    public void What_does_not_fit_is_refused_and_the_batch_stays()
    {
        var random = new SplitMix64(1);
        EncodedExample[] examples = [Example(random, 4), Example(random, 4), Example(random, 1), Example(random, 1)];
        var batch = new PackedBatch(7, 2);
        var packer = new BatchPacker();
        packer.Fill(batch, examples, [0]);
        Assert.Throws<InputException>(() => packer.Fill(batch, examples, [0, 1]));
        Assert.Throws<InputException>(() => packer.Fill(batch, examples, [0, 2, 3]));
        Assert.Equal((4, 1), (batch.TokenCount, batch.SequenceCount));
        Assert.Equal(examples[0].Ids, batch.TokenIds[..4]);
        Assert.Throws<InputException>(() => new PackedBatch(0, 1));
    }

    [Fact]
    public void Filling_allocates_nothing()
    {
        var random = new SplitMix64(1);
        var examples = Enumerable.Range(1, 20).Select(n => Example(random, n)).ToArray();
        int[] all = [.. Enumerable.Range(0, 20)];
        var batch = new PackedBatch(210, 20);
        var packer = new BatchPacker(hiddenKeyId: 0);
        packer.Fill(batch, examples, all);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 100; i++)
            packer.Fill(batch, examples, all);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    [Fact]
    public void Malformed_examples_are_refused()
    {
        Assert.Throws<InputException>(() => EncodedExample.Text(new([], [])));
        Assert.Throws<InputException>(() => EncodedExample.Text(new([1], [])));
        Assert.Throws<InputException>(() => EncodedExample.Text(new([1], [0]), poolIndex: 1));
        Assert.Throws<InputException>(() => EncodedExample.Causal([1, 2], [1], 0));
    }

    private static EncodedExample Example(SplitMix64 random, int length)
    {
        var ids = Enumerable.Range(0, length).Select(_ => random.NextInt32(5)).ToArray();
        return EncodedExample.Causal(ids, [.. ids.Select(i => i == 3 ? None : i)], random.NextInt32(length));
    }
}
