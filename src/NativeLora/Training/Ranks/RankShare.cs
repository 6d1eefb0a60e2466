using NativeLora.Graphs;

namespace NativeLora.Training;

/// <summary>Which rows of a batch each rank works on: neighbours, cut where the tokens before come nearest to an even share.</summary>
internal static class RankShare
{
    /// <summary>First row of a rank's share, which ends where the next rank's begins; a share may be empty.</summary>
    /// <param name="lengths">Tokens of each row.</param>
    /// <param name="total">Tokens of all rows.</param>
    /// <param name="rank">The rank.</param>
    /// <param name="size">How many ranks there are.</param>
    public static int First(ReadOnlySpan<int> lengths, long total, int rank, int size)
    {
        if (rank >= size)
            return lengths.Length;
        var row = 0;
        long before = 0;
        // A cut after the next row is nearer while its half lies before the even share.
        while (row < lengths.Length && (2 * before + lengths[row]) * size < 2 * total * rank)
            before += lengths[row++];
        return row;
    }

    /// <summary>The largest share of batches of a size.</summary>
    public static BatchSize Capacity(BatchSize whole, int size, int longest)
    {
        var tokens = (int)Math.Min(whole.Tokens, (whole.Tokens + size - 1L) / size + longest);
        return whole with { Tokens = tokens, SquaredLengths = Math.Min(whole.SquaredLengths, (long)tokens * longest) };
    }
}
