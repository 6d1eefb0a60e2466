using Xunit.Abstractions;

namespace NativeLora.Tests.Docs;

/// <summary>The commands of all pages run, in the order of the page, and print what the page says.</summary>
public sealed class PageCommandTests(ITestOutputHelper log)
{
    /// <summary>So many commands are shown and not run, at most: each with a reason on its page.</summary>
    private const int MostNotRun = 12;

    public static TheoryData<string> Pages => [.. DocsPage.All().Where(p => p.Blocks.Any(b => b.IsShell)).Select(p => p.Name).Where(n => n != TutorialCommandTests.Page)];

    [SharedTheory]
    [MemberData(nameof(Pages))]
    public void CommandsRun(string page) => new PageRun(log).Run(page);

    [Fact]
    public void WhatIsNotRunIsLittleAndHasAReason()
    {
        var (run, left) = (0, new List<string>());
        foreach (var block in DocsPage.All().SelectMany(p => p.Blocks).Where(b => b.IsShell))
            foreach (var command in block.Commands())
            {
                if ((block.Marks.NotRun ?? DocsCommand.BuildsTheRepository(command)) is not { } reason)
                {
                    run++;
                    continue;
                }
                left.Add($"{block.Where} {command}: {reason}");
                Assert.True(reason.Split(' ').Length >= 3, $"{block.Where}: \"{reason}\" is no reason");
            }
        log.WriteLine($"{run} commands run, {left.Count} do not:\n{string.Join('\n', left)}");
        var marked = left.Count(l => !l.EndsWith(DocsCommand.BuildsTheRepository("dotnet build")!, StringComparison.Ordinal));
        Assert.True(marked <= MostNotRun, $"{marked} commands are marked as not run:\n{string.Join('\n', left)}");
        Assert.True(run >= 40, $"only {run} commands are run");
    }

    [Fact]
    public void OptionsOfMarksAreThoseOfTheirCommands()
    {
        foreach (var block in DocsPage.All().SelectMany(p => p.Blocks).Where(b => b.IsShell && b.Marks.With.Length > 0))
            foreach (var option in block.Marks.With.Where(w => w.StartsWith("--", StringComparison.Ordinal)))
                Assert.True(block.Commands().Any(c => DocsCommand.Completed(c, [option, "x"]).Contains($"{option} x", StringComparison.Ordinal)), $"{block.Where}: no command takes {option}");
    }

    [Theory]
    [InlineData("nativelora train --max-rows 8 --data glue/MRPC", "--max-rows 2 --max-steps 1", "nativelora train --max-rows 2 --data glue/MRPC --max-steps 1")]
    [InlineData("nativelora info --model a b | head", "--model c --max-rows 2", "nativelora info --model c | head")]
    [InlineData("nativelora predict --text \"a b\" 'c d' --threads 2", "--text x", "nativelora predict --text x --threads 2")]
    [InlineData("dotnet run -c Release --project src/NativeLora.Cli -- demo", "--quick", "nativelora demo --quick")]
    public void OptionsStandInPlaceOfThoseThatAreThere(string line, string options, string completed) =>
        Assert.Equal(completed, DocsCommand.Completed(line, [.. DocsCommand.Words(options)]));
}

/// <summary>The longest page by itself, beside the others.</summary>
public sealed class TutorialCommandTests(ITestOutputHelper log)
{
    public const string Page = "docs/tutorial.md";

    [SharedFact]
    public void CommandsRun() => new PageRun(log).Run(Page);
}
