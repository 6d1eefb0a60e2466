using System.Globalization;

namespace NativeLora.Bench.Compare;

/// <summary><c>--name value</c> pairs and the words between them.</summary>
internal sealed class Options
{
    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);
    private readonly List<string> _words = [];

    public Options(IReadOnlyList<string> args, params string[] known)
    {
        for (var i = 0; i < args.Count; i++)
        {
            if (!args[i].StartsWith("--", StringComparison.Ordinal))
            {
                _words.Add(args[i]);
                continue;
            }
            var name = args[i][2..];
            if (!known.Contains(name))
                throw new InputException($"no option {args[i]} here; there are {string.Join(", ", known.Select(k => "--" + k))}");
            if (i + 1 == args.Count)
                throw new InputException($"{args[i]} needs a value");
            _values[name] = args[++i];
        }
    }

    public IReadOnlyList<string> Words => _words;

    public string? Text(string name) => _values.GetValueOrDefault(name);

    public string Text(string name, string otherwise) => Text(name) ?? otherwise;

    public int Number(string name, int otherwise) => Text(name) is { } text ? Positive(name, text) : otherwise;

    public int[] Numbers(string name, params int[] otherwise) =>
        Text(name) is { } text ? [.. text.Split(',').Select(part => Positive(name, part))] : otherwise;

    private static int Positive(string name, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) && value > 0
            ? value
            : throw new InputException($"--{name} {text}: a number from 1 on is expected");
}
