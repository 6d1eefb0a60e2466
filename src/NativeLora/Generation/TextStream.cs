using System.Runtime.InteropServices;
using NativeLora.Data;

namespace NativeLora.Generation;

/// <summary>
/// Text of tokens that come one by one. A token may hold a part of a character, or look otherwise beside others: so each is decoded
/// together with the ones before it, text with an incomplete end waits for the next, and so does what may begin a stop string.
/// </summary>
internal sealed class TextStream
{
    // No character has more bytes than 4: a longer wait is for text that is not valid.
    private const int MostWaiting = 16;
    private const int Context = 8;

    private readonly ITokenizer _tokenizer;
    private readonly IReadOnlyList<string> _stops;
    private readonly List<int> _ids = [];
    private int _from;
    private int _shown;
    private string _held = "";

    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="prompt">Tokens that are continued: the first new one is decoded beside them.</param>
    /// <param name="stops">Texts that end the stream.</param>
    public TextStream(ITokenizer tokenizer, ReadOnlySpan<int> prompt, IReadOnlyList<string> stops)
    {
        (_tokenizer, _stops) = (tokenizer, stops);
        _ids.AddRange(prompt[Math.Max(0, prompt.Length - Context)..]);
        _shown = _ids.Count;
    }

    /// <summary>Whether a stop string came up; the text ends before it.</summary>
    public bool Stopped { get; private set; }

    /// <summary>Takes a token, and gives the text that is complete by now.</summary>
    public string Add(int id)
    {
        _ids.Add(id);
        return Release(Decoded(last: false), last: false);
    }

    /// <summary>What is left.</summary>
    public string Finish() => Stopped ? "" : Release(Decoded(last: true), last: true);

    private string Decoded(bool last)
    {
        if (_shown == _ids.Count)
            return "";
        var ids = CollectionsMarshal.AsSpan(_ids);
        var before = _tokenizer.Decode(ids[_from.._shown]);
        var now = _tokenizer.Decode(ids[_from..]);
        var waits = now.Length <= before.Length || now[^1] == '\uFFFD';
        if (waits && !last && _ids.Count - _shown < MostWaiting)
            return "";
        (_from, _shown) = (_shown, _ids.Count);
        return now.Length > before.Length ? now[before.Length..] : "";
    }

    private string Release(string fresh, bool last)
    {
        var text = _held + fresh;
        var end = -1;
        foreach (var stop in _stops)
            if (text.IndexOf(stop, StringComparison.Ordinal) is >= 0 and var at && (end < 0 || at < end))
                end = at;
        if (end >= 0)
        {
            (Stopped, _held) = (true, "");
            return text[..end];
        }
        var keep = 0;
        if (!last)
            foreach (var stop in _stops)
                keep = Math.Max(keep, Beginning(text, stop));
        _held = text[(text.Length - keep)..];
        return text[..(text.Length - keep)];
    }

    /// <summary>Length of the longest end of the text that a stop string begins with.</summary>
    private static int Beginning(string text, string stop)
    {
        for (var length = Math.Min(text.Length, stop.Length - 1); length > 0; length--)
            if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length)))
                return length;
        return 0;
    }
}
