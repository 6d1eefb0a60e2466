using System.Diagnostics;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Faults.Tasks;

/// <summary>A tiny model with a tokenizer and rows of text in a folder of its own, and the built command line over it.</summary>
internal sealed class TinyTask : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly bool _isCausal;

    public TinyTask(bool isCausal = false)
    {
        _isCausal = isCausal;
        TinyModel.Open(Model, isCausal, threads: 1).Dispose();
        string[] special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        System.IO.File.WriteAllLines(File("model/vocab.txt"), [.. special, .. Enumerable.Range(0, 35).Select(i => $"w{(char)('a' + (i / 6))}{(char)('a' + (i % 6))}")]);
        System.IO.File.WriteAllText(File("model/tokenizer_config.json"), """{"tokenizer_class": "BertTokenizer", "do_lower_case": true}""");
        var random = new Random(1);
        System.IO.File.WriteAllLines(Data, ["text\tlabel", .. Enumerable.Range(0, 60).Select(_ => $"{Text(random)}\t{(random.Next(2) == 0 ? "no" : "yes")}")]);
    }

    public string Model => _folder.File("model");

    public string Data => _folder.File("data.tsv");

    public string Place => _folder.Path;

    public string File(string name) => _folder.File(name);

    public static string Text(Random random) =>
        string.Join(' ', Enumerable.Range(0, random.Next(1, 14)).Select(_ => $"w{(char)('a' + random.Next(5))}{(char)('a' + random.Next(6))}"));

    /// <summary>An adapter that was just begun.</summary>
    public string NewAdapter(string name, ulong seed)
    {
        using var tiny = TinyModel.Open(Model, _isCausal, threads: 1, seed: seed);
        TrainedTensors.Save(tiny.Model, File(name));
        return File(name);
    }

    /// <summary>The arguments of a command on the model and its rows.</summary>
    public string[] Arguments(string command, string output, params ReadOnlySpan<string> more) =>
        [command, "--model", Model, "--task", "text", "--data", Data, .. command is "select" ? (string[])[] : ["--dev", Data], "--threads", "1", "--json", "--output", output, .. more];

    /// <summary>The arguments of a short training with all that moves, and checkpoints every few steps.</summary>
    public string[] Training(string output, int steps, params ReadOnlySpan<string> more) =>
        Arguments("train", output,
        ["--max-steps", $"{steps}", "--batch-size", "4", "--accumulation", "2", "--dropout", "0.1", "--lr", "1e-3", "--save-every", "3", "--eval-every", "7",
         "--keep-best", "loss", .. more]);

    public void Dispose() => _folder.Dispose();
}

/// <summary>The built command line as a process of its own.</summary>
internal static class CommandLine
{
    /// <summary>Starts a program with the signals as a shell in front of a person has them: in the background of a script Ctrl-C is ignored.</summary>
    public static readonly string[] WithSignals = OperatingSystem.IsLinux() ? ["env", "--default-signal"] : [];

    private static readonly string Assembly = typeof(Cli.Commands.VerifyCommand).Assembly.Location;

    /// <summary>Starts it.</summary>
    /// <param name="arguments">Of the command.</param>
    /// <param name="environment">Beside this process's.</param>
    /// <param name="wrap">A program that starts it, with its arguments; null for none.</param>
    public static Process Start(IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null, string[]? wrap = null)
    {
        string[] line = [.. wrap ?? [], Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet", Assembly, .. arguments];
        var start = new ProcessStartInfo(line[0], line[1..]) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        // Less time to start: hundreds of them are started.
        start.Environment["DOTNET_TieredPGO"] = "0";
        start.Environment["DOTNET_TC_QuickJitForLoops"] = "1";
        return Process.Start(start)!;
    }

    /// <summary>Runs it to its end.</summary>
    public static Ended Run(IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null, string[]? wrap = null)
    {
        using var process = Start(arguments, environment, wrap);
        return End(process);
    }

    /// <summary>Waits for its end.</summary>
    public static Ended End(Process process)
    {
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(120_000))
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
            return new Ended(-1, output.Result, error.Result + "(it did not end)");
        }
        return new Ended(process.ExitCode, output.Result, error.Result);
    }
}

/// <summary>How a process ended.</summary>
internal sealed record Ended(int Code, string Output, string Error)
{
    /// <summary>What it says of its failure; warnings, notes and progress are left out.</summary>
    public string[] Lines => [.. Error.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(l => l.StartsWith("nativelora: ", StringComparison.Ordinal))];

    /// <summary>Null if it failed as it should: with that code, and one line that says why; else what is wrong.</summary>
    public string? NotOneLine(params ReadOnlySpan<int> codes) =>
        !codes.Contains(Code) ? $"exit code {Code}: {Error.Trim()}"
        : Lines is not [var line] ? $"{Lines.Length} lines: {Error.Trim()}"
        : line.Contains("internal error", StringComparison.Ordinal) ? line
        : Error.Contains("   at ", StringComparison.Ordinal) || Error.Contains("Unhandled", StringComparison.Ordinal) ? Error : null;
}
