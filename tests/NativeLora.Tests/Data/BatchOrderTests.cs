using CsCheck;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class BatchOrderTests
{
    /// <summary>The first numbers of Vigna's splitmix64.c from seed 1234567.</summary>
    [Fact]
    public void The_random_numbers_are_SplitMix64()
    {
        var random = new SplitMix64(1234567);
        Assert.Equal(
            [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821],
            Enumerable.Range(0, 5).Select(_ => random.NextUInt64()));
    }

    [Fact]
    public void Random_numbers_go_on_from_a_stored_state_and_are_spread_evenly()
    {
        var random = new SplitMix64(7);
        random.NextGaussian();
        var copy = new SplitMix64(0) { State = random.State };
        Assert.Equal(random.NextGaussian(), copy.NextGaussian());

        var counts = new int[7];
        double sum = 0, squares = 0;
        for (var i = 0; i < 70_000; i++)
        {
            counts[random.NextInt32(7)]++;
            var g = random.NextGaussian();
            (sum, squares) = (sum + g, squares + (g * g));
        }
        Assert.All(counts, c => Assert.InRange(c, 9_600, 10_400));
        Assert.InRange(sum / 70_000, -0.02, 0.02);
        Assert.InRange(squares / 70_000, 0.97, 1.03);
    }

    private static readonly Gen<(int[] Lengths, BatchOrderOptions Options)> Settings =
        Gen.Select(Gen.Int[1, 20].Array[1, 60], Gen.Bool, Gen.Int[1, 9], Gen.Bool, Gen.Int[1, 5], Gen.ULong, (lengths, tokens, size, file, window, seed) =>
            (lengths, new BatchOrderOptions
            {
                BatchSize = tokens ? null : size,
                BatchTokens = tokens ? 20 + size : null,
                FileOrder = file,
                Window = window,
                Seed = seed,
            }));

    [Fact]
    public void Each_epoch_has_each_example_once_within_the_limits() => Settings.Sample(s =>
    {
        var order = new BatchOrder(s.Lengths, s.Options);
        for (var epoch = 0; epoch < 3; epoch++)
        {
            var batches = Epoch(order, epoch);
            Assert.Equal(Enumerable.Range(0, s.Lengths.Length), batches.SelectMany(b => b).Order());
            Assert.Equal(batches.Count, order.BatchCount);
            foreach (var batch in batches)
            {
                Assert.NotEmpty(batch);
                Assert.True(batch.Length <= order.SequenceCapacity && batch.Length <= (s.Options.BatchSize ?? int.MaxValue));
                var tokens = batch.Sum(i => s.Lengths[i]);
                Assert.True(tokens <= order.TokenCapacity && tokens <= (s.Options.BatchTokens ?? int.MaxValue));
            }
            if (s.Options.FileOrder)
                Assert.Equal(Enumerable.Range(0, s.Lengths.Length), batches.SelectMany(b => b));
        }
    }, iter: 300, threads: 1);

    [Fact]
    public void Resuming_anywhere_gives_the_same_batches() => Gen.Select(Settings, Gen.Int[0, 40]).Sample((s, skip) =>
    {
        var whole = new BatchOrder(s.Lengths, s.Options);
        for (var i = 0; i < skip; i++)
            whole.Next();
        var resumed = new BatchOrder(s.Lengths, s.Options);
        resumed.Seek(whole.Epoch, whole.BatchIndex);
        Assert.Equal((whole.Epoch, whole.BatchIndex), (resumed.Epoch, resumed.BatchIndex));
        for (var i = 0; i < 12; i++)
            Assert.Equal(whole.Next().ToArray(), resumed.Next().ToArray());
    }, iter: 200, threads: 1);

    [Fact]
    public void Counting_batches_is_what_the_epochs_give_and_disturbs_nothing() => Settings.Sample(s =>
    {
        var order = new BatchOrder(s.Lengths, s.Options);
        var first = order.Next().ToArray();
        var counted = order.CountBatches(3);
        var again = new BatchOrder(s.Lengths, s.Options);
        Assert.Equal(Enumerable.Range(0, 3).Sum(e => (long)Epoch(again, e).Count), counted);
        again.Seek(0, 0);
        Assert.Equal(first, again.Next().ToArray());
        Assert.Equal(again.Next().ToArray(), order.Next().ToArray());
    }, iter: 100, threads: 1);

    [Fact]
    public void Epochs_and_seeds_differ_and_seed_and_epoch_add()
    {
        var lengths = Enumerable.Range(0, 100).Select(i => 1 + (i % 17)).ToArray();
        var a = new BatchOrder(lengths, new() { BatchSize = 8, Seed = 1 });
        var b = new BatchOrder(lengths, new() { BatchSize = 8, Seed = 2 });
        Assert.NotEqual(Epoch(a, 0), Epoch(a, 1));
        Assert.Equal(Epoch(a, 1), Epoch(b, 0));
    }

    [Fact]
    public void Windows_put_like_lengths_together()
    {
        var random = new SplitMix64(3);
        var lengths = Enumerable.Range(0, 2000).Select(_ => 1 + random.NextInt32(200)).ToArray();
        Assert.InRange(Spread(new() { BatchSize = 16, Window = 50 }), 0, 10);
        Assert.InRange(Spread(new() { BatchSize = 16, Window = 1 }), 150, 200);

        double Spread(BatchOrderOptions options) =>
            Epoch(new BatchOrder(lengths, options), 0).Average(b => b.Max(i => lengths[i]) - b.Min(i => lengths[i]));
    }

    [Fact]
    public void Epochs_after_the_first_allocate_nothing()
    {
        var order = new BatchOrder([.. Enumerable.Range(1, 500)], new() { BatchTokens = 600 });
        while (order.Epoch < 1)
            order.Next();
        var before = GC.GetAllocatedBytesForCurrentThread();
        var examples = 0;
        while (order.Epoch < 3)
            examples += order.Next().Length;
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(1000, examples);
    }

    [Fact]
    public void Bad_settings_are_refused()
    {
        int[] lengths = [3, 9];
        Assert.Throws<InputException>(() => new BatchOrder([], new() { BatchSize = 1 }));
        Assert.Throws<InputException>(() => new BatchOrder([0], new() { BatchSize = 1 }));
        Assert.Throws<InputException>(() => new BatchOrder(lengths, new()));
        Assert.Throws<InputException>(() => new BatchOrder(lengths, new() { BatchSize = 1, BatchTokens = 10 }));
        Assert.Throws<InputException>(() => new BatchOrder(lengths, new() { BatchSize = 0 }));
        Assert.Throws<InputException>(() => new BatchOrder(lengths, new() { BatchSize = 1, Window = 0 }));
        Assert.Contains("example 2 ", Assert.Throws<InputException>(() => new BatchOrder(lengths, new() { BatchTokens = 8 })).Message);
        var order = new BatchOrder(lengths, new() { BatchSize = 1 });
        Assert.Throws<InputException>(() => order.Seek(0, 3));
        Assert.Throws<InputException>(() => order.Seek(-1, 0));
        Assert.Equal((0, 0), (order.Epoch, order.BatchIndex));
    }

    private static List<int[]> Epoch(BatchOrder order, int epoch)
    {
        order.Seek(epoch, 0);
        var batches = new List<int[]>();
        while (order.Epoch == epoch)
            batches.Add(order.Next().ToArray());
        return batches;
    }
}
