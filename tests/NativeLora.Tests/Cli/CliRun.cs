using System.Diagnostics;

namespace NativeLora.Tests.Cli;

/// <summary>One run of <c>nativelora</c> in a process of its own.</summary>
internal sealed record CliRun(int ExitCode, string Output, string Error)
{
    public string[] ErrorLines => Error.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    public static CliRun Of(params string[] args)
    {
        using var process = Start(args);
        return Finish(process);
    }

    public static Process Start(params string[] args)
    {
        var start = new ProcessStartInfo(Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "NativeLora.Cli.dll"));
        foreach (var arg in args)
            start.ArgumentList.Add(arg);
        return Process.Start(start)!;
    }

    public static CliRun Finish(Process process)
    {
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        if (!process.WaitForExit(120_000))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail("nativelora did not end within two minutes");
        }
        return new CliRun(process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    /// <summary>Bad usage or input: one line on the error stream, exit code 2.</summary>
    public void AssertRefused(string saying)
    {
        Assert.Equal(2, ExitCode);
        Assert.Single(ErrorLines);
        Assert.StartsWith("nativelora: ", Error, StringComparison.Ordinal);
        Assert.Contains(saying, Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", Output + Error, StringComparison.Ordinal);
        Assert.DoesNotContain("internal error", Error, StringComparison.Ordinal);
    }

    public CliRun AssertDone()
    {
        Assert.True(ExitCode == 0, $"exit code {ExitCode}: {Error}");
        Assert.DoesNotContain('\u001b', Output + Error);
        return this;
    }
}
