using System.Diagnostics;
using System.Globalization;

namespace NativeLora.Tests.Training;

/// <summary>The command line's training, killed or interrupted, and resumed.</summary>
public sealed class KillTests : IDisposable
{
    private readonly CliRun _run = new();
    private int _steps = 300;

    [Fact]
    public void Killed_at_ten_random_moments_the_result_has_the_same_bits()
    {
        Finish("whole");
        var random = new Random(5);
        for (var kill = 0; kill < 10; kill++)
        {
            using var process = Start("killed", "--resume");
            // The file shrinks to what the checkpoint knows before it grows: steps of this process alone are counted.
            var lines = Lines("killed");
            var until = random.Next(1, 12);
            while (Lines("killed") is var now && now - lines < until && !process.HasExited)
            {
                lines = Math.Min(lines, now);
                Thread.Sleep(1);
            }
            Thread.Sleep(random.Next(10));
            process.Kill();
            process.WaitForExit();
            Assert.True(Lines("killed") < _steps, "the training was over before it could be killed");
        }
        Finish("killed", "--resume");
        Same("killed", "adapter_model.safetensors");
        Same("killed", $"checkpoints/step-{_steps}/optimizer.safetensors");
        Assert.Equal(_steps + 1, Lines("killed"));
        Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(_run.File("killed/checkpoints")), p => Path.GetFileName(p).StartsWith('.'));
    }

    [Theory]
    [InlineData("INT", 130)]
    [InlineData("TERM", 143)]
    [InlineData("HUP", 129)]
    public void A_signal_writes_a_checkpoint_and_says_how_to_go_on(string signal, int code)
    {
        if (OperatingSystem.IsWindows())
            return;
        _steps = 100;
        using (var process = Start("stopped"))
        {
            while (Lines("stopped") < 3 && !process.HasExited)
                Thread.Sleep(1);
            using (var kill = Process.Start("kill", ["-s", signal, $"{process.Id}"]))
                kill.WaitForExit();
            var error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            Assert.Equal(code, process.ExitCode);
            var newest = Directory.EnumerateDirectories(_run.File("stopped/checkpoints")).MaxBy(p => int.Parse(p[(p.LastIndexOf('-') + 1)..], CultureInfo.InvariantCulture))!;
            Assert.Contains($"the checkpoint is {newest}", error, StringComparison.Ordinal);
            Assert.Contains("--resume", error, StringComparison.Ordinal);
        }
        Finish("stopped", "--resume");
        Finish("whole");
        Same("stopped", "adapter_model.safetensors");
    }

    private Process Start(string output, params string[] more) => _run.Start("train", Arguments(output, more));

    private void Finish(string output, params string[] more)
    {
        var (code, _, error) = _run.Run("train", Arguments(output, more));
        Assert.True(code == 0, error);
    }

    private string[] Arguments(string output, string[] more) =>
        ["--output", _run.File(output), "--max-steps", $"{_steps}", "--batch-size", "4", "--accumulation", "2", "--eval-every", "1000", "--dropout", "0.1",
         "--lr", "1e-3", "--save-every", "5", .. more];

    private int Lines(string output)
    {
        var path = _run.File(output + "/metrics.jsonl");
        if (!File.Exists(path))
            return 0;
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().Count(c => c == '\n');
    }

    private void Same(string output, string file) => Assert.Equal(_run.Bytes("whole/" + file), _run.Bytes($"{output}/{file}"));

    public void Dispose() => _run.Dispose();
}
