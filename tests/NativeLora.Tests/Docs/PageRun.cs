using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;
using Xunit.Abstractions;

namespace NativeLora.Tests.Docs;

/// <summary>Runs the commands of a page, in its order and in a folder of its own, and compares what they print with what the page shows.</summary>
internal sealed partial class PageRun(ITestOutputHelper log)
{
    /// <summary>The port on pages; in its place comes one that is free.</summary>
    private const string ShownPort = ":5080";

    private static string FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return string.Create(CultureInfo.InvariantCulture, $":{((IPEndPoint)listener.LocalEndpoint).Port}");
    }

    public void Run(string page)
    {
        if (OperatingSystem.IsWindows())
            return;
        using var folder = new DocsFolder();
        var said = "";
        foreach (var block in DocsPage.Of(page).Blocks)
        {
            if (block.Marks.IsOutput)
                Compare(block, said);
            if (!block.IsShell || block.Marks.NotRun is not null)
                continue;
            if (block.Marks.OnlyIf is { } needed && !DocsFolder.IsThere(needed))
            {
                log.WriteLine($"not run, as there is no {needed} here: {block.Where}");
                continue;
            }
            said = Run(folder, block);
        }
    }

    private string Run(DocsFolder folder, DocsBlock block)
    {
        var said = new StringBuilder();
        string[] commands = [.. block.Commands().Where(c => DocsCommand.BuildsTheRepository(c) is null).Select(c => DocsCommand.Completed(c, block.Marks.With))];
        var port = FreePort();
        if (block.Marks.Serves)
            commands = [.. commands.Select(c => c.Replace(ShownPort, port, StringComparison.Ordinal))];
        // What it logs goes nowhere: nobody reads it, and a full pipe would stop it.
        using var server = block.Marks.Serves ? folder.Start($"exec {commands[0]} > service.log 2>&1") : null;
        try
        {
            foreach (var line in commands.Skip(server is null ? 0 : 1))
                said.Append(Run(folder, block, line));
        }
        finally
        {
            server?.Kill(entireProcessTree: true);
        }
        return said.ToString();
    }

    private string Run(DocsFolder folder, DocsBlock block, string line)
    {
        var started = Stopwatch.StartNew();
        var run = folder.Run(line);
        log.WriteLine($"{started.Elapsed.TotalSeconds:0.0} s: {line}");
        Assert.True(run.ExitCode == (block.Marks.Fails ? 2 : 0), $"{block.Where}: {line}\nexit code {run.ExitCode}\n{run.Output}{run.Error}");
        return run.Output + run.Error;
    }

    // The lines of a page in their order; a line "…" stands for any others. The first may be anywhere.
    private static void Compare(DocsBlock block, string said)
    {
        string[] actual = [.. said.Split('\n').Select(Plain).Where(l => l.Length > 0)];
        var (at, free) = (0, true);
        foreach (var line in block.Lines.Select(Plain).Where(l => l.Length > 0))
        {
            if (line == "…")
            {
                free = true;
                continue;
            }
            var found = Array.FindIndex(actual, at, l => IsSame(line, l, block.Marks.Tolerance));
            Assert.True(found >= 0 && (free || found == at), $"{block.Where}: \"{line}\" is not what is printed{(free ? "" : " next")}:\n{said}");
            (at, free) = (found + 1, false);
        }
    }

    private static bool IsSame(string shown, string actual, double tolerance)
    {
        if (tolerance == 0)
            return shown == actual;
        if (Numbers().Replace(shown, "#") != Numbers().Replace(actual, "#"))
            return false;
        return double.IsInfinity(tolerance) || Values(shown).Zip(Values(actual)).All(p => Math.Abs(p.First - p.Second) <= tolerance * Math.Abs(p.First));
    }

    private static IEnumerable<double> Values(string line) =>
        Numbers().Matches(line).Select(m => double.Parse(m.Value, NumberStyles.Float | NumberStyles.AllowThousands, CultureInfo.InvariantCulture));

    private static string Plain(string line) => Spaces().Replace(line, " ").Trim();

    [GeneratedRegex(@"\d[\d,]*(\.\d+)?(e-?\d+)?")]
    private static partial Regex Numbers();

    [GeneratedRegex(@"\s+")]
    private static partial Regex Spaces();
}
