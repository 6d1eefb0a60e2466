using System.Collections.Concurrent;
using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>Turns one piece of text into token ids.</summary>
internal abstract class SubwordModel(Vocabulary vocabulary)
{
    // Bounds the memory: past them, words are worked out each time.
    private const int CacheEntries = 1 << 16, CachedLength = 64;

    private readonly ConcurrentDictionary<string, int[]> _cache = new(StringComparer.Ordinal);

    // ConcurrentDictionary.Count takes every lock, so the entries are counted here.
    private int _cached;

    public Vocabulary Vocabulary { get; } = vocabulary;

    public void Tokenize(string piece, List<int> ids)
    {
        if (_cache.TryGetValue(piece, out var known))
        {
            ids.AddRange(known);
            return;
        }
        var start = ids.Count;
        Work(piece, ids);
        if (piece.Length <= CachedLength && Volatile.Read(ref _cached) < CacheEntries
            && _cache.TryAdd(piece, [.. ids[start..]]))
            Interlocked.Increment(ref _cached);
    }

    protected abstract void Work(string piece, List<int> ids);
}

/// <summary>Longest match first; a word with a part that the vocabulary lacks, or too long, is one unknown token.</summary>
internal sealed class WordPieceModel(Vocabulary vocabulary, int unknownId, string prefix, int longestWord) : SubwordModel(vocabulary)
{
    protected override void Work(string piece, List<int> ids)
    {
        var characters = 0;
        foreach (var c in piece)
            characters += char.IsLowSurrogate(c) ? 0 : 1;
        if (characters > longestWord)
        {
            ids.Add(unknownId);
            return;
        }
        var first = ids.Count;
        var candidate = new char[prefix.Length + piece.Length];
        prefix.CopyTo(candidate);
        piece.CopyTo(0, candidate, prefix.Length, piece.Length);
        for (var start = 0; start < piece.Length;)
        {
            var end = piece.Length;
            var id = -1;
            for (; end > start; end--)
            {
                if (end < piece.Length && char.IsLowSurrogate(piece[end]))
                    continue;
                if (start > 0)
                    prefix.CopyTo(0, candidate, start, prefix.Length);
                var part = start == 0
                    ? candidate.AsSpan(prefix.Length, end)
                    : candidate.AsSpan(start, prefix.Length + end - start);
                if (Vocabulary.Lookup.TryGetValue(part, out id))
                    break;
                id = -1;
            }
            if (id < 0)
            {
                ids.RemoveRange(first, ids.Count - first);
                ids.Add(unknownId);
                return;
            }
            ids.Add(id);
            start = end;
        }
    }
}

/// <summary>What a BPE model is set to besides its merges.</summary>
/// <param name="UnknownId">Stands for characters outside the vocabulary; without one they are dropped.</param>
/// <param name="FuseUnknown">Neighbouring unknown characters become one token.</param>
/// <param name="ByteFallback">Unknown characters are written as byte tokens such as &lt;0x0A&gt;, where all exist.</param>
/// <param name="IgnoreMerges">A piece that is a token is taken whole.</param>
/// <param name="Prefix">Put before every character of a piece but the first.</param>
/// <param name="Suffix">Put after the last character of a piece.</param>
internal sealed record BpeOptions(int? UnknownId = null, bool FuseUnknown = false, bool ByteFallback = false,
    bool IgnoreMerges = false, string Prefix = "", string Suffix = "");

/// <summary>Byte-pair encoding: the neighbouring pair of the lowest rank merges first, the leftmost of equals.</summary>
internal sealed class BpeModel : SubwordModel
{
    private readonly BpeOptions _options;
    private readonly Dictionary<long, (int Rank, int Id)> _merges;
    private readonly int?[] _byteIds = new int?[256];

    /// <param name="vocabulary">Holds both sides and the result of every merge.</param>
    /// <param name="merges">Pairs in order of rank.</param>
    /// <param name="wrong">Makes the error for the merge at an index.</param>
    /// <param name="options">The rest.</param>
    public BpeModel(Vocabulary vocabulary, IReadOnlyList<(string Left, string Right)> merges, Func<int, string, InputException> wrong,
        BpeOptions options) : base(vocabulary)
    {
        _options = options;
        _merges = new Dictionary<long, (int, int)>(merges.Count);
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            var tail = right.StartsWith(options.Prefix, StringComparison.Ordinal) ? right[options.Prefix.Length..] : right;
            // The last entry of a pair that stands twice counts, as in the reference.
            _merges[Pair(Known(left), Known(right))] = (rank, Known(left + tail));

            int Known(string token) => vocabulary.Find(token) ?? throw wrong(rank,
                $"the merge of '{Vocabulary.Shown(left)}' and '{Vocabulary.Shown(right)}' needs the token '{Vocabulary.Shown(token)}', which the vocabulary lacks");
        }
        for (var b = 0; b < 256; b++)
            _byteIds[b] = vocabulary.Find($"<0x{b:X2}>");
    }

    protected override void Work(string piece, List<int> ids)
    {
        if (_options.IgnoreMerges && Vocabulary.Find(piece) is { } whole)
        {
            ids.Add(whole);
            return;
        }
        var symbols = Symbols(piece);
        if (symbols.Count > 1)
            Merge(symbols, ids);
        else
            ids.AddRange(symbols);
    }

    private static long Pair(int left, int right) => ((long)left << 32) | (uint)right;

    private List<int> Symbols(string piece)
    {
        var symbols = new List<int>(piece.Length);
        int? unknown = null;
        for (var at = 0; at < piece.Length;)
        {
            var length = char.IsHighSurrogate(piece[at]) ? 2 : 1;
            var decorated = (at > 0 && _options.Prefix.Length > 0) || (at + length == piece.Length && _options.Suffix.Length > 0);
            var character = piece.AsSpan(at, length);
            if (decorated)
            {
                character = (at > 0 ? _options.Prefix : "") + character.ToString()
                    + (at + length == piece.Length ? _options.Suffix : "");
            }
            at += length;
            if (Vocabulary.Lookup.TryGetValue(character, out var id))
            {
                if (unknown is { } pending)
                    symbols.Add(pending);
                unknown = null;
                symbols.Add(id);
            }
            else if (!(_options.ByteFallback && TryBytes(character, symbols)) && _options.UnknownId is { } unknownId)
            {
                if (unknown is { } pending && !_options.FuseUnknown)
                    symbols.Add(pending);
                unknown = unknownId;
            }
        }
        if (unknown is { } last)
            symbols.Add(last);
        return symbols;
    }

    private bool TryBytes(ReadOnlySpan<char> character, List<int> symbols)
    {
        Span<byte> bytes = stackalloc byte[4];
        if (Encoding.UTF8.GetByteCount(character) > bytes.Length)
            bytes = new byte[Encoding.UTF8.GetByteCount(character)];
        bytes = bytes[..Encoding.UTF8.GetBytes(character, bytes)];
        foreach (var b in bytes)
        {
            if (_byteIds[b] is null)
                return false;
        }
        foreach (var b in bytes)
            symbols.Add(_byteIds[b]!.Value);
        return true;
    }

    private void Merge(List<int> symbols, List<int> ids)
    {
        var count = symbols.Count;
        var next = new int[count];
        var previous = new int[count];
        // Rank above position in one number, so the queue's order is the order of merging.
        var queue = new PriorityQueue<int, long>(count);
        for (var i = 0; i < count; i++)
        {
            previous[i] = i - 1;
            next[i] = i + 1 < count ? i + 1 : -1;
            if (next[i] >= 0)
                Offer(i);
        }
        while (queue.TryDequeue(out var merged, out var key))
        {
            var at = (int)(key & 0xFFFFFFFF);
            // Either half may have been merged away since; then the entry is stale.
            if (symbols[at] < 0 || next[at] < 0
                || !_merges.TryGetValue(Pair(symbols[at], symbols[next[at]]), out var now) || now.Id != merged)
                continue;
            var gone = next[at];
            symbols[at] = merged;
            symbols[gone] = -1;
            next[at] = next[gone];
            if (next[at] >= 0)
            {
                previous[next[at]] = at;
                Offer(at);
            }
            if (previous[at] >= 0)
                Offer(previous[at]);
        }
        foreach (var id in symbols)
        {
            if (id >= 0)
                ids.Add(id);
        }

        void Offer(int at)
        {
            if (_merges.TryGetValue(Pair(symbols[at], symbols[next[at]]), out var merge))
                queue.Enqueue(merge.Id, ((long)merge.Rank << 32) | (uint)at);
        }
    }
}
