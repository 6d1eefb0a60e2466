using System.Diagnostics;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Training;

/// <summary>The command line's training, killed or interrupted, and resumed.</summary>
public sealed class KillTests : IDisposable
{
    private const int Steps = 600;
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Killed_at_ten_random_moments_the_result_has_the_same_bits()
    {
        Prepare();
        using (var whole = Start("whole"))
            Assert.Equal(0, Wait(whole));
        var random = new Random(5);
        for (var kill = 0; kill < 10; kill++)
        {
            using var process = Start("killed", "--resume");
            // The file shrinks to what the checkpoint knows before it grows: steps of this process alone are counted.
            var lines = Lines("killed");
            var until = random.Next(1, 25);
            while (Lines("killed") is var now && now - lines < until && !process.HasExited)
            {
                lines = Math.Min(lines, now);
                Thread.Sleep(1);
            }
            Thread.Sleep(random.Next(30));
            process.Kill();
            process.WaitForExit();
            Assert.True(Lines("killed") < Steps, "the training was over before it could be killed");
        }
        using (var last = Start("killed", "--resume"))
            Assert.Equal(0, Wait(last));
        Same("adapter_model.safetensors");
        Same($"checkpoints/step-{Steps}/optimizer.safetensors");
        Assert.Equal(Steps + 1, Lines("killed"));
        Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(_folder.File("killed/checkpoints")), p => Path.GetFileName(p).StartsWith('.'));
    }

    [Theory]
    [InlineData(2)]
    [InlineData(15)]
    public void A_signal_writes_a_checkpoint_and_says_how_to_go_on(int signal)
    {
        if (OperatingSystem.IsWindows())
            return;
        Prepare();
        using var process = Start("stopped");
        while (Lines("stopped") < 5 && !process.HasExited)
            Thread.Sleep(1);
        Assert.Equal(0, SendSignal(process.Id, signal));
        var error = process.StandardError.ReadToEnd();
        Assert.Equal(130, Wait(process));
        var checkpoint = Assert.Single(Directory.EnumerateDirectories(_folder.File("stopped/checkpoints"))
            .OrderByDescending(p => int.Parse(p[(p.LastIndexOf('-') + 1)..], System.Globalization.CultureInfo.InvariantCulture)).Take(1));
        Assert.Contains($"the checkpoint is {checkpoint}", error, StringComparison.Ordinal);
        Assert.Contains("--resume", error, StringComparison.Ordinal);
        using var resumed = Start("stopped", "--resume");
        Assert.Equal(0, Wait(resumed));
        using var whole = Start("whole");
        Assert.Equal(0, Wait(whole));
        Assert.Equal(File.ReadAllBytes(_folder.File("whole/adapter_model.safetensors")), File.ReadAllBytes(_folder.File("stopped/adapter_model.safetensors")));
    }

    private void Prepare()
    {
        TinyModel.Open(_folder.File("model"), isCausal: false).Dispose();
        string[] special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        File.WriteAllLines(_folder.File("model/vocab.txt"), [.. special, .. Enumerable.Range(0, 35).Select(i => $"w{(char)('a' + i / 6)}{(char)('a' + i % 6)}")]);
        File.WriteAllText(_folder.File("model/tokenizer_config.json"), """{"tokenizer_class": "BertTokenizer", "do_lower_case": true}""");
        var random = new Random(1);
        var rows = Enumerable.Range(0, 60).Select(_ =>
            $"{string.Join(' ', Enumerable.Range(0, random.Next(1, 14)).Select(_ => $"w{(char)('a' + random.Next(5))}{(char)('a' + random.Next(6))}"))}\t{(random.Next(2) == 0 ? "no" : "yes")}");
        File.WriteAllLines(_folder.File("data.tsv"), ["text\tlabel", .. rows]);
    }

    private Process Start(string output, params string[] more)
    {
        var start = new ProcessStartInfo("dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in (string[])
            [typeof(NativeLora.Cli.Commands.VerifyCommand).Assembly.Location, "train", "--model", _folder.File("model"), "--task", "text", "--data", _folder.File("data.tsv"),
             "--dev", _folder.File("data.tsv"), "--output", _folder.File(output), "--max-steps", $"{Steps}", "--batch-size", "4", "--accumulation", "2",
             "--eval-every", "1000", "--dropout", "0.1", "--lr", "1e-3", "--save-every", "7", "--threads", "1", "--json", .. more])
            start.ArgumentList.Add(argument);
        return Process.Start(start)!;
    }

    private static int Wait(Process process)
    {
        var error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(120_000), "it does not end");
        return process.ExitCode is 0 or 130 ? process.ExitCode : throw new InvalidOperationException(error);
    }

    private int Lines(string output)
    {
        var path = _folder.File(output + "/metrics.jsonl");
        if (!File.Exists(path))
            return 0;
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().Count(c => c == '\n');
    }

    private void Same(string file) => Assert.Equal(File.ReadAllBytes(_folder.File("whole/" + file)), File.ReadAllBytes(_folder.File("killed/" + file)));

    private static int SendSignal(int process, int signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{process}"]);
        kill.WaitForExit();
        return kill.ExitCode;
    }

    public void Dispose() => _folder.Dispose();
}
