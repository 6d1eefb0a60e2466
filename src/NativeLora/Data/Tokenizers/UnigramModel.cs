using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>The most likely way to cut a piece into tokens; neighbouring unknown characters are one unknown token.</summary>
internal sealed class UnigramModel : SubwordModel
{
    // SentencePiece's penalty, below the worst token.
    private const double UnknownPenalty = 10;

    private readonly double[] _scores;
    private readonly int _unknownId, _longest;
    private readonly double _unknownScore;
    private readonly int?[] _byteIds = new int?[256];

    public UnigramModel(Vocabulary vocabulary, double[] scores, int unknownId, bool byteFallback) : base(vocabulary)
    {
        _scores = scores;
        _unknownId = unknownId;
        _unknownScore = scores.Min() - UnknownPenalty;
        _longest = vocabulary.Entries.Max(entry => entry.Key.Length);
        for (var b = 0; b < 256 && byteFallback; b++)
            _byteIds[b] = vocabulary.Find($"<0x{b:X2}>");
    }

    protected override void Work(string piece, List<int> ids)
    {
        var best = new (double Score, int Start, int Id)[piece.Length + 1];
        for (var end = 1; end < best.Length; end++)
            best[end].Start = -1;
        for (int start = 0, width; start < piece.Length; start += width)
        {
            width = char.IsHighSurrogate(piece[start]) ? 2 : 1;
            var single = false;
            for (var length = 1; length <= Math.Min(_longest, piece.Length - start); length++)
            {
                if (!Vocabulary.Lookup.TryGetValue(piece.AsSpan(start, length), out var id))
                    continue;
                Offer(start, start + length, _scores[id], id);
                single |= length == width;
            }
            if (!single)
                Offer(start, start + width, _unknownScore, _unknownId);
        }

        var path = new List<(int Start, int End, int Id)>();
        for (var end = piece.Length; end > 0; end = best[end].Start)
        {
            var (_, start, id) = best[end];
            if (id == _unknownId && path.Count > 0 && path[^1].Id == _unknownId)
                path[^1] = (start, path[^1].End, id);
            else
                path.Add((start, end, id));
        }
        for (var i = path.Count - 1; i >= 0; i--)
        {
            var (start, end, id) = path[i];
            if (id != _unknownId || !TryBytes(piece.AsSpan(start, end - start), ids))
                ids.Add(id);
        }

        void Offer(int start, int end, double score, int id)
        {
            score += best[start].Score;
            if (best[end].Start < 0 || score > best[end].Score)
                best[end] = (score, start, id);
        }
    }

    private bool TryBytes(ReadOnlySpan<char> text, List<int> ids)
    {
        var bytes = new byte[Encoding.UTF8.GetByteCount(text)];
        Encoding.UTF8.GetBytes(text, bytes);
        if (Array.Exists(bytes, b => _byteIds[b] is null))
            return false;
        foreach (var b in bytes)
            ids.Add(_byteIds[b]!.Value);
        return true;
    }
}
