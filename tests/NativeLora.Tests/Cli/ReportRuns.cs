using System.CommandLine;
using NativeLora.Cli.Commands;

namespace NativeLora.Tests.Cli;

/// <summary>Folders that every kind of run left, made once for all tests of the report, and a page of them.</summary>
public sealed class ReportRuns : IDisposable
{
    private static readonly string[] Small = ["--lr", "1e-2", "--batch-size", "8", "--dropout", "0"];
    private readonly Training.CliRun _cli = new();

    public ReportRuns()
    {
        Assert.Equal(0, SelectCommand.Create().Parse(["--model", File("model"), "--task", "text", "--data", File("data.tsv"), "--threads", "1", "--ratio", "0.5", "--output", File("picked")])
            .Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }));
        Go("run", ["--output", File("chosen"), "--ratio", "0.5", "--epochs", "2", "--eval-every", "3", "--profile", "3", .. Small]);
        Go("train", ["--output", File("everywhere"), "--epochs", "2", "--eval-every", "3", .. Small]);
        Go("study", ["--output", File("compared"), "--strategies", "all,cka,last,random,none", "--seeds", "3", "--epochs", "2", .. Small]);
        Make("report.html", Folders);
    }

    public string[] Folders => [File("picked"), File("chosen"), File("everywhere"), File("compared")];

    public string Page => File("report.html");

    public string File(string name) => _cli.File(name);

    /// <summary>Makes a page.</summary>
    public string Make(string name, params string[] folders)
    {
        Assert.Equal(0, Invoke([.. folders, "--output", File(name)]));
        return File(name);
    }

    public static int Invoke(params string[] arguments) =>
        ReportCommand.Create().Parse(arguments).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });

    /// <summary>A copy of a run that a test may spoil.</summary>
    public string Copy(string name, string to)
    {
        var target = File(to);
        foreach (var file in Directory.GetFiles(File(name), "*", SearchOption.AllDirectories))
        {
            var place = Path.Combine(target, Path.GetRelativePath(File(name), file));
            Directory.CreateDirectory(Path.GetDirectoryName(place)!);
            System.IO.File.Copy(file, place, overwrite: true);
        }
        return target;
    }

    /// <summary>Runs a command on the tiny model.</summary>
    public string Go(string command, params string[] arguments)
    {
        var (code, output, error) = _cli.Run(command, arguments);
        Assert.True(code == 0, error);
        return output;
    }

    public void Dispose() => _cli.Dispose();
}

/// <summary>One page for all tests of the report.</summary>
[CollectionDefinition(Name)]
public sealed class ReportCollection : ICollectionFixture<ReportRuns>
{
    public const string Name = "report";
}
