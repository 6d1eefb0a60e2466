using System.Globalization;
using System.Text.RegularExpressions;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>
/// What a page says of a block in an HTML comment above it, <c>&lt;!-- docs: … --&gt;</c>, several between semicolons: <c>not run, because …</c>,
/// <c>with OPTIONS</c> (put into the commands of the block, in place of those they have), <c>if PROGRAM or FILE</c> (run only where it is
/// there), <c>serves</c> (the first command goes on while the others run), <c>fails</c> (exit code 2, the output is the message), <c>output</c> (what the commands before it print), <c>output, numbers
/// vary</c>, <c>output, numbers within 2 %</c>, <c>snippet NAME</c> (C# that a test compiles), <c>from FILE</c> (lines of that file).
/// </summary>
internal sealed record DocsMarks
{
    public string? NotRun { get; private init; }

    public string[] With { get; private init; } = [];

    public string? OnlyIf { get; private init; }

    public bool Fails { get; private init; }

    /// <summary>Whether the first command goes on while the others run.</summary>
    public bool Serves { get; private init; }

    public bool IsOutput { get; private init; }

    /// <summary>By how much numbers of an output may differ; infinity where only the words count.</summary>
    public double Tolerance { get; private init; }

    public string? Snippet { get; private init; }

    public string? From { get; private init; }

    public static DocsMarks Parse(string text, string where)
    {
        var marks = new DocsMarks();
        foreach (var part in text.Split(';', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            var (word, rest) = part.Split(' ', 2) is [var first, var more] ? (first, more.Trim()) : (part, "");
            marks = (word, rest) switch
            {
                ("not", _) when rest.StartsWith("run, because ", StringComparison.Ordinal) => marks with { NotRun = rest["run, because ".Length..] },
                ("with", _) when rest.StartsWith('-') => marks with { With = [.. DocsCommand.Words(rest)] },
                ("if", { Length: > 0 }) => marks with { OnlyIf = rest },
                ("fails", "") => marks with { Fails = true },
                ("serves", "") => marks with { Serves = true },
                ("output", "") => marks with { IsOutput = true },
                ("output,", "numbers vary") => marks with { IsOutput = true, Tolerance = double.PositiveInfinity },
                ("output,", _) when Regex.Match(rest, @"^numbers within ([\d.]+) %$") is { Success: true } match =>
                    marks with { IsOutput = true, Tolerance = double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) / 100 },
                ("snippet", { Length: > 0 }) => marks with { Snippet = rest },
                ("from", { Length: > 0 }) => marks with { From = rest },
                _ => throw new InvalidDataException($"{where}: the mark \"{part}\" means nothing"),
            };
        }
        return marks;
    }
}

/// <summary>A fenced block of a page.</summary>
internal sealed record DocsBlock(string Page, int Line, string Language, IReadOnlyList<string> Lines, DocsMarks Marks)
{
    private static readonly string[] Programs = ["nativelora", "dotnet"];

    public string Where => $"{Page}:{Line}";

    public bool IsShell => !Marks.IsOutput && (Language == "sh" || (Language == "" && Lines.Any(StartsProgram)));

    /// <summary>The commands, each on one line, without comments. Where a block has no language, only lines that begin with a known program are some.</summary>
    public IEnumerable<string> Commands()
    {
        var joined = "";
        foreach (var line in Lines)
        {
            var (text, goesOn) = line.EndsWith('\\') ? (line[..^1], true) : (line, false);
            joined += text.Trim() + " ";
            if (goesOn)
                continue;
            var command = Regex.Replace(joined, @"(^|\s{2,})#.*$", "").Trim();
            joined = "";
            if (command.Length > 0 && (Language == "sh" || StartsProgram(command)))
                yield return command;
        }
    }

    private static bool StartsProgram(string line) => Programs.Contains(line.Split(' ', 2)[0]);
}

/// <summary>A Markdown file of the repository.</summary>
internal sealed class DocsPage
{
    public DocsPage(string path)
    {
        Path = path;
        Name = System.IO.Path.GetRelativePath(Repository.File("."), path).Replace('\\', '/');
        Lines = File.ReadAllLines(path);
        Blocks = [.. Read()];
    }

    public string Path { get; }

    public string Name { get; }

    public string[] Lines { get; }

    public IReadOnlyList<DocsBlock> Blocks { get; }

    /// <summary>Lines that are no part of a fenced block.</summary>
    public IEnumerable<string> Prose()
    {
        var fenced = false;
        foreach (var line in Lines)
        {
            if (line.StartsWith("```", StringComparison.Ordinal))
                fenced = !fenced;
            else if (!fenced)
                yield return line;
        }
    }

    public static IEnumerable<DocsPage> All() =>
        Directory.GetFiles(Repository.File("docs"), "*.md").Append(Repository.File("README.md")).Order(StringComparer.Ordinal).Select(p => new DocsPage(p));

    public static DocsPage Of(string name) => new(Repository.File(name.Split('/')));

    private IEnumerable<DocsBlock> Read()
    {
        var marks = new DocsMarks();
        for (var i = 0; i < Lines.Length; i++)
        {
            var line = Lines[i];
            if (Regex.Match(line, @"^<!-- docs: (.*) -->$") is { Success: true } match)
            {
                marks = DocsMarks.Parse(match.Groups[1].Value, $"{Name}:{i + 1}");
            }
            else if (line.StartsWith("```", StringComparison.Ordinal))
            {
                var from = i + 1;
                while (++i < Lines.Length && Lines[i] != "```") { }
                if (i == Lines.Length)
                    throw new InvalidDataException($"{Name}:{from}: the block is not closed");
                yield return new DocsBlock(Name, from + 1, line[3..].Trim(), Lines[from..i], marks);
                marks = new DocsMarks();
            }
            else if (line.Length > 0 && marks != new DocsMarks())
            {
                throw new InvalidDataException($"{Name}:{i + 1}: a block is wanted behind its mark");
            }
        }
    }
}
