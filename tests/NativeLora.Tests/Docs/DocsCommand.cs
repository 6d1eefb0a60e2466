using System.CommandLine;
using System.Reflection;
using System.Text.RegularExpressions;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>Commands as pages have them, and as the tests run them.</summary>
internal static class DocsCommand
{
    private const string FromSource = "dotnet run -c Release --project src/NativeLora.Cli -- ";
    private const string WebFromSource = "dotnet run -c Release --project samples/NativeLora.Sample.Web -- ";

    /// <summary>The sample service, where it was built.</summary>
    public const string BuiltWeb = "samples/NativeLora.Sample.Web/bin/Release/net10.0/NativeLora.Sample.Web.dll";

    /// <summary>All commands of the command line, by name.</summary>
    public static IReadOnlyDictionary<string, Command> Definitions { get; } = typeof(global::NativeLora.Cli.Shell).Assembly.GetTypes()
        .Where(t => t.Namespace == "NativeLora.Cli.Commands")
        .Select(t => t.GetMethod("Create", BindingFlags.Static | BindingFlags.Public, []))
        .Where(m => m?.ReturnType == typeof(Command))
        .Select(m => (Command)m!.Invoke(null, [])!)
        .OrderBy(c => c.Name, StringComparer.Ordinal)
        .ToDictionary(c => c.Name, StringComparer.Ordinal);

    /// <summary>Why a command is not run, although the page does not say so; null: it is.</summary>
    public static string? BuildsTheRepository(string command) =>
        command.StartsWith("dotnet ", StringComparison.Ordinal) && !command.StartsWith(FromSource, StringComparison.Ordinal) && !command.StartsWith(WebFromSource, StringComparison.Ordinal) ? "it builds, tests or packs the repository" : null;

    /// <summary>The words of a command line, quotes kept.</summary>
    public static IEnumerable<string> Words(string line) => Regex.Matches(line, """(?:"[^"]*"|'[^']*'|[^\s"'])+""").Select(m => m.Value);

    /// <summary>The line as it is run: <c>dotnet run</c> of the command line is the built one, and a mark's options stand in place of the line's own.</summary>
    /// <param name="line">The command.</param>
    /// <param name="options">Options and their values.</param>
    public static string Completed(string line, IReadOnlyList<string> options)
    {
        if (line.StartsWith(FromSource, StringComparison.Ordinal))
            line = "nativelora " + line[FromSource.Length..];
        if (line.StartsWith(WebFromSource, StringComparison.Ordinal))
            line = $"dotnet '{Repository.File(BuiltWeb.Split('/'))}' {line[WebFromSource.Length..]}";
        List<string> words = [.. Words(line)];
        if (options.Count == 0 || words is not ["nativelora", var name, ..] || !Definitions.TryGetValue(name, out var command))
            return line;
        for (int i = 0, next; i < options.Count; i = next)
        {
            next = i + 1;
            while (next < options.Count && !options[next].StartsWith("--", StringComparison.Ordinal))
                next++;
            if (command.Options.FirstOrDefault(o => o.Name == options[i]) is not { } option)
                continue;
            var end = words.FindIndex(w => w is "|" or ">" or "<" or "&&");
            end = end < 0 ? words.Count : end;
            var at = words.FindIndex(0, end, w => w == option.Name || option.Aliases.Contains(w));
            if (at < 0)
            {
                words.InsertRange(end, options.Skip(i).Take(next - i));
                continue;
            }
            var stop = at + 1;
            while (stop < end && !words[stop].StartsWith('-'))
                stop++;
            words.RemoveRange(at, stop - at);
            words.InsertRange(at, options.Skip(i).Take(next - i));
        }
        return string.Join(' ', words);
    }
}
