using System.Diagnostics;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Training;

/// <summary>The command line in processes of its own, over a tiny model with a tokenizer and data.</summary>
internal sealed class CliRun : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public CliRun()
    {
        TinyModel.Open(File("model"), isCausal: false).Dispose();
        string[] special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        System.IO.File.WriteAllLines(File("model/vocab.txt"), [.. special, .. Enumerable.Range(0, 35).Select(i => $"w{(char)('a' + i / 6)}{(char)('a' + i % 6)}")]);
        System.IO.File.WriteAllText(File("model/tokenizer_config.json"), """{"tokenizer_class": "BertTokenizer", "do_lower_case": true}""");
        var random = new Random(1);
        var rows = Enumerable.Range(0, 60).Select(_ =>
            $"{string.Join(' ', Enumerable.Range(0, random.Next(1, 14)).Select(_ => $"w{(char)('a' + random.Next(5))}{(char)('a' + random.Next(6))}"))}\t{(random.Next(2) == 0 ? "no" : "yes")}");
        System.IO.File.WriteAllLines(File("data.tsv"), ["text\tlabel", .. rows]);
    }

    /// <summary>Environment of the processes, beside this one's.</summary>
    public Dictionary<string, string> Environment { get; } = [];

    public string File(string name) => _folder.File(name);

    /// <summary>Starts a command on the model and its task.</summary>
    public Process Start(string command, params IEnumerable<string> more) => Start([.. Launcher, .. Words(command, more)]);

    /// <summary>What starts the command, such as mpirun; empty: nothing but the command itself.</summary>
    public string[] Launcher { get; set; } = [];

    /// <summary>The words of a command on the model and its task.</summary>
    public string[] Words(string command, params IEnumerable<string> more) =>
        ["dotnet", typeof(NativeLora.Cli.Commands.VerifyCommand).Assembly.Location, command, "--model", File("model"), "--task", "text", "--data", File("data.tsv"), "--dev", File("data.tsv"),
         "--threads", "1", "--json", .. more];

    /// <summary>Starts a program.</summary>
    public Process Start(IReadOnlyList<string> words)
    {
        var start = new ProcessStartInfo(words[0]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in words.Skip(1))
            start.ArgumentList.Add(argument);
        foreach (var (name, value) in Environment)
            start.Environment[name] = value;
        return Process.Start(start)!;
    }

    /// <summary>Runs a command to its end.</summary>
    public (int Code, string Output, string Error) Run(string command, params IEnumerable<string> more)
    {
        using var process = Start(command, more);
        return End(process);
    }

    /// <summary>Waits for the end of a process.</summary>
    public static (int Code, string Output, string Error) End(Process process)
    {
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(120_000), "it does not end");
        return (process.ExitCode, output.Result, error);
    }

    public byte[] Bytes(string name) => System.IO.File.ReadAllBytes(File(name));

    public void Dispose() => _folder.Dispose();
}
