namespace NativeLora.Data.Tokenizers;

/// <summary>Tokens and their ids, one to one; ids may have gaps.</summary>
internal sealed class Vocabulary
{
    // Above any published vocabulary; a larger id is damage, and would only cost memory.
    public const int MaximumId = 1 << 20;

    private readonly Dictionary<string, int> _ids;
    private readonly List<string?> _tokens;
    private readonly string _file;

    public Vocabulary(string file, int capacity = 0)
    {
        _file = file;
        _ids = new Dictionary<string, int>(capacity, StringComparer.Ordinal);
        _tokens = new List<string?>(capacity);
        Lookup = _ids.GetAlternateLookup<ReadOnlySpan<char>>();
    }

    /// <summary>One more than the highest id.</summary>
    public int Size => _tokens.Count;

    public int Count => _ids.Count;

    /// <summary>Finds ids of parts of a string without making strings of them.</summary>
    public Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> Lookup { get; }

    public IEnumerable<KeyValuePair<string, int>> Entries => _ids;

    /// <summary>Adds a token; neither its text nor its id may be taken.</summary>
    public void Add(string token, int id)
    {
        if (id is < 0 or > MaximumId)
            throw new InputException(
                $"{_file}: token '{Shown(token)}' has id {id}, outside 0 to {MaximumId}; use the file that was saved with the model");
        while (_tokens.Count <= id)
            _tokens.Add(null);
        if (_tokens[id] is { } other)
            throw new InputException(
                $"{_file}: id {id} belongs to both '{Shown(other)}' and '{Shown(token)}'; use the file that was saved with the model");
        if (!_ids.TryAdd(token, id))
            throw new InputException(
                $"{_file}: token '{Shown(token)}' stands twice, as id {_ids[token]} and {id}; use the file that was saved with the model");
        _tokens[id] = token;
    }

    public int? Find(string token) => _ids.TryGetValue(token, out var id) ? id : null;

    public string? TokenOf(int id) => (uint)id < (uint)_tokens.Count ? _tokens[id] : null;

    /// <summary>A token as an error message may show it: on one line, and short.</summary>
    public static string Shown(string token)
    {
        var cut = token.Length <= 40 ? token : token[..40] + "...";
        return string.Concat(cut.Select(c => char.IsControl(c) || char.IsSurrogate(c) || c is '\u2028' or '\u2029'
            ? $"\\u{(int)c:x4}" : c.ToString()));
    }
}
