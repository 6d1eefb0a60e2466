using System.Text.RegularExpressions;
using NativeLora.Graphs;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>What pages name is there: other pages and their headings, files of the repository, lines of code, tests, kernels and ops.</summary>
public sealed partial class PageLinkTests
{
    private static readonly string[] Folders = ["src/", "tests/", "kernels/", "bench/", "docs/", "samples/"];

    [Fact]
    public void LinksLeadSomewhere()
    {
        foreach (var page in DocsPage.All())
            foreach (var target in page.Prose().SelectMany(l => Links().Matches(Code().Replace(l, ""))).Select(m => m.Groups[1].Value))
            {
                if (target.Contains("://", StringComparison.Ordinal))
                    continue;
                var (file, heading) = target.Split('#', 2) is [var before, var after] ? (before, after) : (target, null);
                var path = file.Length == 0 ? page.Path : Path.GetFullPath(Path.Combine(Path.GetDirectoryName(page.Path)!, file));
                Assert.True(Path.Exists(path), $"{page.Name}: {target} is not there");
                if (heading is not null)
                    Assert.True(Headings(path).Contains(heading), $"{page.Name}: {target} has no such heading");
            }
    }

    [Fact]
    public void EveryPageIsInTheIndex()
    {
        var index = File.ReadAllText(Repository.File("docs", "README.md"));
        foreach (var page in Directory.GetFiles(Repository.File("docs"), "*.md").Select(p => Path.GetFileName(p)!).Where(p => p != "README.md"))
            Assert.True(index.Contains($"]({page})", StringComparison.Ordinal), $"docs/README.md does not name {page}");
    }

    // docs/decisions.md tells what was, with the names of that time.
    [Fact]
    public void FilesThatAreNamedAreThere()
    {
        foreach (var page in DocsPage.All().Where(p => p.Name != "docs/decisions.md"))
            foreach (var name in page.Prose().SelectMany(l => Code().Matches(l)).Select(m => m.Groups[1].Value))
                if (Folders.Any(f => name.StartsWith(f, StringComparison.Ordinal)) && Plain().IsMatch(name))
                    Assert.True(Path.Exists(Repository.File(name.Split('/'))), $"{page.Name}: {name} is not in the repository");
    }

    /// <summary>A test is named as <c>ClassTests.Method</c>.</summary>
    [Fact]
    public void TestsThatAreNamedAreThere()
    {
        var types = typeof(PageLinkTests).Assembly.GetTypes().ToLookup(t => t.Name, StringComparer.Ordinal);
        var count = 0;
        foreach (var page in DocsPage.All().Where(p => p.Name.StartsWith("docs/", StringComparison.Ordinal)))
            foreach (Match match in page.Prose().SelectMany(l => Tests().Matches(l)))
            {
                var (type, method) = (match.Groups[1].Value, match.Groups[2].Value);
                if (types[type] is not { } found || !found.Any())
                {
                    // Those of the CUDA device are in a project of their own.
                    Assert.True(Directory.EnumerateFiles(Repository.File("tests", "NativeLora.Cuda.Tests"), $"{type}.cs", SearchOption.AllDirectories).Any(), $"{page.Name}: there is no test {type}");
                    continue;
                }
                Assert.True(method.Length == 0 || found.Any(t => t.GetMethod(method) is not null), $"{page.Name}: there is no test {type}.{method}");
                count++;
            }
        Assert.True(count > 30, $"only {count} tests are named");
    }

    [Fact]
    public void QuotedCodeIsInItsFile()
    {
        var quoted = 0;
        foreach (var block in DocsPage.All().SelectMany(p => p.Blocks).Where(b => b.Marks.From is not null))
        {
            var lines = File.ReadAllLines(Repository.File(block.Marks.From!.Split('/'))).Select(l => l.Trim()).ToArray();
            // Pieces between lines of "…" stand in the file in this order.
            var at = 0;
            foreach (var piece in Pieces(block.Lines.Select(l => l.Trim())))
            {
                var found = Enumerable.Range(at, Math.Max(0, lines.Length - at)).FirstOrDefault(i => lines.Skip(i).Take(piece.Count).SequenceEqual(piece), -1);
                Assert.True(found >= 0, $"{block.Where}: not so in {block.Marks.From}:\n{string.Join('\n', piece)}");
                at = found + piece.Count;
            }
            quoted++;
        }
        Assert.True(quoted > 5, $"only {quoted} blocks are quoted");
    }

    [Fact]
    public void SnippetsAreThoseThatAreCompiled()
    {
        var sources = Directory.GetFiles(Repository.File("tests", "NativeLora.Tests", "Docs"), "*Snippets.cs").SelectMany(File.ReadAllLines).ToArray();
        foreach (var block in DocsPage.All().SelectMany(p => p.Blocks).Where(b => b.Language == "csharp" && b.Page != "README.md"))
        {
            Assert.True(block.Marks.Snippet is not null || block.Marks.From is not null, $"{block.Where}: say which snippet it is, or of which file");
            if (block.Marks.Snippet is not { } name)
                continue;
            var lines = sources.SkipWhile(l => l.Trim() != $"// <{name}>").Skip(1).TakeWhile(l => l.Trim() != $"// </{name}>").ToArray();
            Assert.True(lines.Length > 0, $"{block.Where}: there is no snippet {name} in tests/NativeLora.Tests/Docs");
            var indent = lines.Where(l => l.Length > 0).Min(l => l.Length - l.TrimStart().Length);
            Assert.Equal(lines.Select(l => l.Length == 0 ? l : l[indent..]), block.Lines);
        }
    }

    [Fact]
    public void EveryKernelAndOpIsOnItsPage()
    {
        var page = File.ReadAllText(Repository.File("docs", "kernels.md"));
        foreach (var file in Directory.GetFiles(Repository.File("kernels"), "*.c*", SearchOption.AllDirectories))
            Assert.True(page.Contains($"`{Path.GetFileName(file)}`", StringComparison.Ordinal), $"docs/kernels.md does not name {Path.GetFileName(file)}");
        foreach (var op in typeof(Op).Assembly.GetTypes().Where(t => t.IsSubclassOf(typeof(Op)) && !t.IsAbstract))
            Assert.True(page.Contains($"`{op.Name}`", StringComparison.Ordinal), $"docs/kernels.md does not name {op.Name}");
        foreach (var file in Directory.GetFiles(Repository.File("src", "NativeLora", "Ops"), "*.cs"))
            Assert.True(page.Contains(Path.GetFileNameWithoutExtension(file), StringComparison.Ordinal), $"docs/kernels.md does not name {Path.GetFileName(file)}");
    }

    /// <summary>The first column of the tables of docs/troubleshooting.md holds messages, "…" where they differ.</summary>
    [Fact]
    public void MessagesThatAreListedAreThoseOfTheSources()
    {
        var sources = string.Concat(Directory.EnumerateFiles(Repository.File("src"), "*.cs", SearchOption.AllDirectories)
            .Where(f => !f.Contains($"{Path.DirectorySeparatorChar}obj{Path.DirectorySeparatorChar}", StringComparison.Ordinal))
            .Select(File.ReadAllText)).Replace("\\\"", "\"", StringComparison.Ordinal);
        var count = 0;
        foreach (var row in DocsPage.Of("docs/troubleshooting.md").Prose().Where(l => l.StartsWith("| ", StringComparison.Ordinal)))
            foreach (var part in Varying().Split(row.Split(" | ")[0][2..]).Select(p => p.Trim(' ', ':', ';', ',', '.')).Where(p => p.Length >= 12))
            {
                Assert.True(sources.Contains(part, StringComparison.Ordinal), $"no source says \"{part}\" of: {row}");
                count++;
            }
        Assert.True(count > 40, $"only {count} parts of messages are looked up");
    }

    private static List<List<string>> Pieces(IEnumerable<string> lines)
    {
        List<List<string>> pieces = [[]];
        foreach (var line in lines)
            if (line is "…" or "// …")
                pieces.Add([]);
            else
                pieces[^1].Add(line);
        return [.. pieces.Where(p => p.Count > 0)];
    }

    // As GitHub names them.
    private static HashSet<string> Headings(string path) =>
        [.. File.ReadAllLines(path).Where(l => l.StartsWith('#')).Select(l => NoWord().Replace(l.TrimStart('#').Trim().ToLowerInvariant(), "").Replace(' ', '-'))];

    [GeneratedRegex(@"\[[^\]]*\]\(([^)\s]+)\)")]
    private static partial Regex Links();

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Code();

    [GeneratedRegex(@"^[\w./-]+$")]
    private static partial Regex Plain();

    [GeneratedRegex(@"`(\w+Tests)(?:\.(\w+))?`")]
    private static partial Regex Tests();

    // What is filled in.
    [GeneratedRegex(@"…|\.\.|\d+|FILE|[\[\]()""]")]
    private static partial Regex Varying();

    [GeneratedRegex(@"[^\w\- ]")]
    private static partial Regex NoWord();
}
