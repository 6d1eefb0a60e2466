using System.Text.RegularExpressions;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Faults;

/// <summary>SECURITY.md: what it names is there.</summary>
public sealed partial class SecurityPageTests
{
    private static readonly string[] UnsafeFolders = ["src/NativeLora/Devices/", "src/NativeLora/Checkpoints/", "src/NativeLora.Cuda/", "src/NativeLora.Mpi/"];

    [Fact]
    public void Every_test_that_is_named_exists()
    {
        var named = Named().Matches(File.ReadAllText(Repository.File("SECURITY.md"))).Select(m => (Class: m.Groups[1].Value, Method: m.Groups[2].Value)).Distinct().ToList();
        Assert.True(named.Count > 30, "the page names hardly any tests");
        var types = typeof(SecurityPageTests).Assembly.GetTypes();
        foreach (var (type, method) in named)
        {
            var found = types.Where(t => t.Name == type).SelectMany(t => t.GetMethods()).FirstOrDefault(m => m.Name == method);
            Assert.True(found is not null && found.GetCustomAttributes(typeof(FactAttribute), inherit: true).Length > 0, $"SECURITY.md names {type}.{method}, which is no test");
        }
    }

    [Fact]
    public void Every_campaign_that_is_named_exists()
    {
        var named = Campaigns().Matches(File.ReadAllText(Repository.File("SECURITY.md"))).SelectMany(m => Quoted().Matches(m.Value)).Select(m => m.Groups[1].Value).Distinct().ToList();
        Assert.True(named.Count > 5, "the page names hardly any campaigns");
        Assert.All(named, name => Assert.Contains(name, NativeLora.Faults.FaultCampaigns.Names));
    }

    [Fact]
    public void Unsafe_code_is_confined()
    {
        var root = Repository.File("src");
        var files = Directory.EnumerateFiles(root, "*.cs", SearchOption.AllDirectories).Where(p => !p.Contains("/obj/", StringComparison.Ordinal)).ToList();
        Assert.NotEmpty(files);
        foreach (var path in files)
        {
            var name = "src/" + Path.GetRelativePath(root, path).Replace('\\', '/');
            if (!UnsafeFolders.Any(f => name.StartsWith(f, StringComparison.Ordinal)))
                Assert.False(Unsafe().IsMatch(File.ReadAllText(path)), $"{name} has unsafe code");
        }
    }

    [GeneratedRegex(@"`(\w+Tests)\.(\w+)`")]
    private static partial Regex Named();

    [GeneratedRegex(@"campaigns? `[^|]*")]
    private static partial Regex Campaigns();

    [GeneratedRegex(@"`([a-z-]+)`")]
    private static partial Regex Quoted();

    // The keyword, not the word in a comment.
    [GeneratedRegex(@"^[^/""]*\bunsafe\b\s+(?:static|struct|class|partial|void|delegate|ref|\{|\w+\s+\w+\s*\()|^\s*unsafe\s*$", RegexOptions.Multiline)]
    private static partial Regex Unsafe();
}
