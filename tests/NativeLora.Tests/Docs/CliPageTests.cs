using NativeLora.Tests.Cli;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>The page of commands and options is the one that the definitions make.</summary>
public sealed class CliPageTests
{
    private const string Update = "NATIVELORA_UPDATE_DOCS";

    [Fact]
    public void ThePageIsWhatTheDefinitionsSay()
    {
        var (path, text) = (Repository.File("docs", "cli.md"), CliPage.Text());
        if (Environment.GetEnvironmentVariable(Update) == "1")
            File.WriteAllText(path, text);
        var lines = text.Split('\n');
        string[] known = File.Exists(path) ? File.ReadAllText(path).Split('\n') : [];
        string[] changes = [.. lines.Except(known).Select(l => $"+ {l}"), .. known.Except(lines).Select(l => $"- {l}")];
        Assert.True(lines.SequenceEqual(known), $"docs/cli.md is not up to date: {Update}=1 dotnet test -c Release tests/NativeLora.Tests --filter CliPage\n{string.Join('\n', changes.Take(40))}");
    }

    [Fact]
    public void EveryCommandOfTheProgramIsDefinedThere()
    {
        var help = CliRun.Of("--help").AssertDone().Output.Split('\n').SkipWhile(l => !l.StartsWith("Commands:", StringComparison.Ordinal)).Skip(1)
            .Where(l => l.Length > 3 && l.StartsWith("  ", StringComparison.Ordinal) && l[2] != ' ').Select(l => l.Trim().Split(' ')[0]);
        Assert.Equal(DocsCommand.Definitions.Keys, help.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void EveryOptionIsDescribed()
    {
        foreach (var command in DocsCommand.Definitions.Values)
            foreach (var option in command.Options)
                Assert.False(string.IsNullOrWhiteSpace(option.Description), $"{command.Name} {option.Name} has no description");
    }
}
