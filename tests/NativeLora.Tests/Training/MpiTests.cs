using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace NativeLora.Tests.Training;

/// <summary>Trainings under Open MPI's mpirun, in processes and in network namespaces.</summary>
public sealed class MpiTests : IDisposable
{
    private static readonly string[] Common =
        ["--max-steps", "12", "--batch-size", "5", "--accumulation", "2", "--dropout", "0.1", "--lr", "2e-3", "--eval-every", "1000", "--save-every", "3"];

    private readonly CliRun _run = new();

    public MpiTests()
    {
        (_run.Environment["OMPI_ALLOW_RUN_AS_ROOT"], _run.Environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"]) = ("1", "1");
        // Threads of the runtime that look for work would keep the ranks from theirs.
        _run.Environment["DOTNET_ThreadPool_UnfairSemaphoreSpinLimit"] = "0";
    }

    [MpiFact]
    public void Two_and_four_ranks_follow_the_curve_of_one_process_and_write_once()
    {
        var one = Trained(1, "one", out _);
        foreach (var ranks in (int[])[2, 4])
        {
            var several = Trained(ranks, $"ranks-{ranks}", out var output);
            Assert.Equal(12, several.Count);
            for (var s = 0; s < 12; s++)
            {
                Assert.Equal(one[s].Loss, several[s].Loss, (s < 2 ? 1e-6 : 2e-4) * one[s].Loss);
                Assert.Equal(one[s].Norm, several[s].Norm, (s < 2 ? 1e-5 : 2e-4) * one[s].Norm);
            }
            using var report = JsonDocument.Parse(output);
            var parallel = report.RootElement.GetProperty("parallel");
            Assert.Equal(ranks, parallel.GetProperty("ranks").GetInt32());
            var (planned, bytes) = (parallel.GetProperty("planned_step_bytes").GetInt64(), parallel.GetProperty("step_bytes").GetInt64());
            Assert.Equal(planned, bytes);
            Assert.Equal(12 * planned, parallel.GetProperty("total_bytes").GetInt64());
            Assert.All(several, s => Assert.Equal(bytes, s.Bytes));
        }
        Trained(2, "again", out _);
        Assert.Equal(_run.Bytes("ranks-2/adapter_model.safetensors"), _run.Bytes("again/adapter_model.safetensors"));
        Assert.Equal(_run.Bytes("ranks-2/checkpoints/step-12/optimizer.safetensors"), _run.Bytes("again/checkpoints/step-12/optimizer.safetensors"));
    }

    [MpiFact]
    public void A_rank_that_is_killed_ends_the_job_with_a_line_and_a_checkpoint_to_go_on_from()
    {
        Launch(2);
        string[] steps = ["--max-steps", "4000", .. Common[2..^1], "50"];
        using (var process = _run.Start("train", ["--output", _run.File("killed"), .. steps]))
        {
            var error = process.StandardError.ReadToEndAsync();
            _ = process.StandardOutput.ReadToEndAsync();
            Await(process, () => Lines("killed") >= 4);
            var clock = Stopwatch.StartNew();
            var rank = RankProcess(1, _run.File("killed"));
            Process.GetProcessById(rank).Kill();
            Assert.True(process.WaitForExit(30_000), "the survivor goes on");
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(15), $"{clock.Elapsed}");
            Assert.NotEqual(0, process.ExitCode);
            var line = Assert.Single(error.Result.Split('\n'), l => l.StartsWith("nativelora: ", StringComparison.Ordinal));
            Assert.StartsWith($"nativelora: rank 1 (process {rank} on {Environment.MachineName}) has died: ", line, StringComparison.Ordinal);
            Assert.EndsWith($"; the checkpoint is {Newest("killed")}: give the same command again with --resume", line, StringComparison.Ordinal);
        }
        var reached = Lines("killed");
        Assert.InRange(reached, 4, 3999);

        // And Ctrl-C: mpirun passes it on as SIGTERM, and kills a second later unless it is told to wait longer.
        using (var process = _run.Start("train", ["--output", _run.File("killed"), "--resume", .. steps]))
        {
            var error = process.StandardError.ReadToEndAsync();
            _ = process.StandardOutput.ReadToEndAsync();
            Await(process, () => Lines("killed") >= reached + 3);
            using (var kill = Process.Start("kill", ["-s", "INT", $"{process.Id}"]))
                kill.WaitForExit();
            Assert.True(process.WaitForExit(30_000), "it goes on");
            var line = Assert.Single(error.Result.Split('\n'), l => l.StartsWith("nativelora: ", StringComparison.Ordinal));
            Assert.Contains($"; the checkpoint is {Newest("killed")}: give the same command again with --resume", line, StringComparison.Ordinal);
        }

        // Killed, interrupted and resumed it has the bits of a training that nobody disturbed.
        foreach (var (name, more) in new[] { ("killed", "--resume"), ("whole", "--overwrite") })
        {
            var (code, _, error) = _run.Run("train", ["--output", _run.File(name), more, .. steps]);
            Assert.True(code == 0, error);
        }
        Assert.Equal(_run.Bytes("whole/adapter_model.safetensors"), _run.Bytes("killed/adapter_model.safetensors"));
        Assert.Equal(Lines("whole"), Lines("killed"));
    }

    [MpiFact]
    public void Ranks_that_differ_are_told_in_one_line()
    {
        string[] Words(string seed) => _run.Words("train", ["--output", _run.File("out"), .. Common, "--seed", seed]);
        var (code, output, error) = CliRun.End(_run.Start(["mpirun", "--oversubscribe", "-n", "1", .. Words("1"), ":", "-n", "1", .. Words("2")]));
        Assert.Equal(2, code);
        Assert.Equal("", output.Trim());
        var line = Assert.Single(error.Split('\n'), l => l.StartsWith("nativelora: ", StringComparison.Ordinal));
        Assert.Contains(" of rank 1 (process ", line, StringComparison.Ordinal);
        Assert.Contains("start all ranks with the same program, command, model and data", line, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_launcher_s_ranks_are_refused()
    {
        _run.Environment["PMI_SIZE"] = "2";
        var (code, _, error) = _run.Run("train", ["--output", _run.File("out"), .. Common]);
        Assert.Equal(2, code);
        Assert.Equal("nativelora: a PMI launcher has started this process as one of several, and only Open MPI's ranks can train together; use its mpirun, or give --parallel off", error.Trim());
    }

    /// <summary>What goes over the wire is counted by the interfaces too: for all layers, and for half of them.</summary>
    [NamespaceFact]
    public void In_network_namespaces_the_interfaces_count_what_was_planned_and_half_the_layers_send_half()
    {
        var counted = new List<(long Adapters, long Counted)>();
        foreach (var (name, layers) in new[] { ("all", "0,1"), ("half", "1") })
        {
            _run.Launcher = ["bash", Script, "2"];
            var (code, output, error) = CliRun.End(_run.Start(
                "train", ["--output", _run.File(name), "--layers", layers, "--r", "256", "--max-steps", "30", "--batch-size", "8", "--lr", "1e-4", "--eval-every", "1000"]));
            Assert.True(code == 0, error);
            using var report = JsonDocument.Parse(File.ReadAllText(_run.File($"{name}/report.json")));
            using var interfaces = JsonDocument.Parse(output.TrimEnd().Split('\n')[^1]);
            var planned = report.RootElement.GetProperty("parallel").GetProperty("total_bytes").GetInt64();
            var sent = interfaces.RootElement.GetProperty("sent").GetInt64();
            Assert.True(sent > planned, $"{sent} {planned}");
            counted.Add((planned, sent));
        }
        // The start and mpirun's own words are in both; the difference is gradients, and the headers of their packets.
        var difference = counted[0].Adapters - counted[1].Adapters;
        Assert.InRange((counted[0].Counted - counted[1].Counted) / (double)difference, 0.97, 1.06);
        Assert.InRange(counted[1].Counted / (double)counted[0].Counted, 0.48, 0.56);
    }

    private static string Script
    {
        get
        {
            for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
                if (File.Exists(Path.Combine(at.FullName, "tests", "mpi-namespaces.sh")))
                    return Path.Combine(at.FullName, "tests", "mpi-namespaces.sh");
            throw new FileNotFoundException("tests/mpi-namespaces.sh");
        }
    }

    private void Launch(int ranks) => _run.Launcher = ranks == 1 ? [] : ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "odls_base_sigkill_timeout", "3", "-n", $"{ranks}"];

    private List<(double Loss, double Norm, long Bytes)> Trained(int ranks, string name, out string output)
    {
        Launch(ranks);
        (var code, output, var error) = _run.Run("train", ["--output", _run.File(name), .. Common]);
        Assert.True(code == 0, error);
        return [.. File.ReadAllLines(_run.File($"{name}/metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).Where(l => l.TryGetProperty("loss", out _)).Select(l =>
            (l.GetProperty("loss").GetDouble(), l.GetProperty("grad_norm").GetDouble(), l.TryGetProperty("wire_bytes", out var bytes) ? bytes.GetInt64() : 0))];
    }

    private static void Await(Process process, Func<bool> condition)
    {
        var clock = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.False(process.HasExited, "it is over");
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60), "it does not begin");
            Thread.Sleep(2);
        }
    }

    // The process whose environment says that it is that rank of the training with that output.
    private static int RankProcess(int rank, string output)
    {
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
            if (int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out var process) && Has(folder, "cmdline", output) && Has(folder, "environ", $"OMPI_COMM_WORLD_RANK={rank}"))
                return process;
        throw new InvalidOperationException($"there is no rank {rank}");
    }

    private static bool Has(string folder, string file, string word)
    {
        try
        {
            return File.ReadAllText(Path.Combine(folder, file)).Split('\0').Contains(word);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private string Newest(string output) => Directory.EnumerateDirectories(_run.File(output + "/checkpoints"), "step-*")
        .MaxBy(p => int.Parse(p[(p.LastIndexOf('-') + 1)..], CultureInfo.InvariantCulture))!;

    private int Lines(string output)
    {
        var path = _run.File(output + "/metrics.jsonl");
        if (!File.Exists(path))
            return 0;
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().Count(c => c == '\n');
    }

    public void Dispose() => _run.Dispose();
}
