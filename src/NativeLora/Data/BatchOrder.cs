namespace NativeLora.Data;

/// <summary>How examples are put into batches.</summary>
public sealed record BatchOrderOptions
{
    /// <summary>Sequences of a batch; exactly one of this and <see cref="BatchTokens"/> is set.</summary>
    public int? BatchSize { get; init; }

    /// <summary>Tokens of a batch, at most.</summary>
    public int? BatchTokens { get; init; }

    /// <summary>Keep the order of the file, every epoch alike, instead of shuffling.</summary>
    public bool FileOrder { get; init; }

    /// <summary>
    /// Batches whose examples are sorted by length before they are cut apart, so that a batch holds like lengths; 1 leaves each
    /// batch a plain random sample.
    /// </summary>
    public int Window { get; init; } = 32;

    /// <summary>Seed of the shuffle; epoch e uses seed + e.</summary>
    public ulong Seed { get; init; }
}

/// <summary>
/// The batches of a training, epoch after epoch. The same options and lengths give the same batches everywhere, so a
/// checkpoint needs only <see cref="Epoch"/> and <see cref="BatchIndex"/>.
/// </summary>
public sealed class BatchOrder
{
    private readonly int[] lengths;
    private readonly BatchOrderOptions options;
    private readonly int[] order;
    private readonly long[] keys;
    private readonly int[] starts;
    private readonly int[] batches;
    private readonly SplitMix64 random = new(0);
    private int plannedEpoch = -1;

    /// <summary>Prepares the order of examples.</summary>
    /// <param name="lengths">Tokens of each example.</param>
    /// <param name="options">How to batch them.</param>
    /// <exception cref="InputException">The options cannot be followed.</exception>
    public BatchOrder(IReadOnlyList<int> lengths, BatchOrderOptions options)
    {
        if (lengths.Count == 0)
            throw new InputException("there are no examples to make batches of; give a data set with rows");
        if (options.BatchSize is null == options.BatchTokens is null)
            throw new InputException("a batch is measured in sequences or in tokens; give one of batch size and batch tokens");
        if ((options.BatchSize ?? options.BatchTokens) < 1 || options.Window < 1)
            throw new InputException("batch size, batch tokens and window are numbers from 1 on; give such");
        this.lengths = [.. lengths];
        this.options = options;
        for (var i = 0; i < this.lengths.Length; i++)
        {
            if (this.lengths[i] < 1)
                throw new InputException($"example {i + 1} has no tokens; leave it out");
            if (this.lengths[i] > options.BatchTokens)
                throw new InputException($"example {i + 1} has {this.lengths[i]} tokens, more than the {options.BatchTokens} of a batch; "
                    + "raise the batch tokens or shorten the maximum length");
        }
        (TokenCapacity, SequenceCapacity) = Capacity(this.lengths, options);
        order = new int[this.lengths.Length];
        keys = new long[this.lengths.Length];
        starts = new int[this.lengths.Length + 1];
        batches = new int[this.lengths.Length];
        Plan(0);
    }

    /// <summary>Tokens that no batch of any epoch exceeds.</summary>
    public int TokenCapacity { get; }

    /// <summary>Sequences that no batch of any epoch exceeds.</summary>
    public int SequenceCapacity { get; }

    /// <summary>Epoch of the batch that <see cref="Next"/> gives next, from 0.</summary>
    public int Epoch { get; private set; }

    /// <summary>Number of that batch in its epoch, from 0.</summary>
    public int BatchIndex { get; private set; }

    /// <summary>Batches in the epoch of the batch given last; with batches measured in tokens, epochs may differ by a few.</summary>
    public int BatchCount { get; private set; }

    /// <summary>Batches of the first epochs together.</summary>
    public long CountBatches(int epochs)
    {
        if (options.BatchSize is not null || options.FileOrder)
            return (long)BatchCount * epochs;
        long total = 0;
        for (var e = 0; e < epochs; e++)
        {
            Plan(e);
            total += BatchCount;
        }
        Plan(Epoch);
        return total;
    }

    /// <summary>Goes to a batch: <see cref="Next"/> gives what it would have given there without interruption.</summary>
    /// <exception cref="InputException">The epoch has no such batch.</exception>
    public void Seek(int epoch, int batchIndex)
    {
        if (epoch < 0)
            throw new InputException($"there is no epoch {epoch}; epochs begin at 0");
        Plan(epoch);
        if (batchIndex < 0 || batchIndex > BatchCount)
        {
            var count = BatchCount;
            Plan(Epoch);
            throw new InputException($"epoch {epoch} has {count} batches, no batch {batchIndex}; is the data the same as before?");
        }
        Epoch = epoch;
        BatchIndex = batchIndex;
        Wrap();
    }

    /// <summary>Indices of the next batch's examples, valid until this object is called again; after an epoch's last batch the next epoch begins.</summary>
    public ReadOnlySpan<int> Next()
    {
        Plan(Epoch);
        var batch = batches[BatchIndex];
        var examples = order.AsSpan(starts[batch]..starts[batch + 1]);
        // The next epoch is planned when it is asked for: planning now would overwrite this batch.
        BatchIndex++;
        if (BatchIndex == BatchCount)
            (Epoch, BatchIndex) = (Epoch + 1, 0);
        return examples;
    }

    private void Wrap()
    {
        if (BatchIndex != BatchCount)
            return;
        (Epoch, BatchIndex) = (Epoch + 1, 0);
        Plan(Epoch);
    }

    private void Plan(int epoch)
    {
        if (plannedEpoch == epoch || (options.FileOrder && plannedEpoch >= 0))
            return;
        plannedEpoch = epoch;
        for (var i = 0; i < order.Length; i++)
            order[i] = i;
        if (options.FileOrder)
        {
            BatchCount = 0;
            Cut(0, order.Length);
            return;
        }

        random.State = unchecked(options.Seed + (ulong)epoch);
        random.Shuffle(order.AsSpan());
        BatchCount = 0;
        for (int from = 0, to; from < order.Length; from = to)
        {
            to = WindowEnd(from);
            SortByLength(from, to);
            Cut(from, to);
        }
        random.Shuffle(batches.AsSpan(0, BatchCount));
    }

    private int WindowEnd(int from)
    {
        if (options.BatchSize is { } size)
            return (int)Math.Min(order.Length, from + (long)size * options.Window);
        var room = (long)options.BatchTokens!.Value * options.Window;
        var to = from;
        while (to < order.Length && (room -= lengths[order[to]]) >= 0)
            to++;
        return to;
    }

    // Among like lengths the shuffled order stays: the key's low half is the place in the window.
    private void SortByLength(int from, int to)
    {
        for (var i = from; i < to; i++)
            keys[i] = ((long)lengths[order[i]] << 32) | (uint)(i - from);
        keys.AsSpan(from..to).Sort(order.AsSpan(from..to));
    }

    private void Cut(int from, int to)
    {
        for (var at = from; at < to;)
        {
            starts[BatchCount] = at;
            long tokens = 0;
            var first = at;
            while (at < to && (options.BatchSize is { } size ? at - first < size : tokens + lengths[order[at]] <= options.BatchTokens))
                tokens += lengths[order[at++]];
            batches[BatchCount] = BatchCount;
            BatchCount++;
        }
        starts[BatchCount] = to;
    }

    // By sequences: as many as there are of the longest. By tokens: as many of the shortest as fit.
    private static (int Tokens, int Sequences) Capacity(int[] lengths, BatchOrderOptions options)
    {
        var sorted = lengths.Order().ToArray();
        if (options.BatchSize is { } size)
        {
            var sequences = Math.Min(size, sorted.Length);
            var tokens = sorted.AsSpan(sorted.Length - sequences).ToArray().Sum(l => (long)l);
            return tokens <= int.MaxValue ? ((int)tokens, sequences) : throw new InputException(
                $"{sequences} sequences may have {tokens} tokens; make the batch size smaller");
        }
        int count = 0, total = 0;
        while (count < sorted.Length && total + (long)sorted[count] <= options.BatchTokens)
            total += sorted[count++];
        return ((int)Math.Min(options.BatchTokens!.Value, sorted.Sum(l => (long)l)), count);
    }
}
