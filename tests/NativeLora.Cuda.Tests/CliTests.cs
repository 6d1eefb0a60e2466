using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using NativeLora.Cli.Commands;
using NativeLora.Devices.Cuda;
using NativeLora.Tests;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;

namespace NativeLora.Cuda.Tests;

/// <summary>The command line in processes of its own, with and without a device.</summary>
public class CliTests
{
    [NoDriverFact]
    public void WithoutADriverItSaysWhatWasLookedFor()
    {
        using var empty = new TemporaryFolder();
        var (code, _, error) = Run(empty.Path, "verify", empty.Path, "--device", "cuda");
        Assert.Equal(2, code);
        var line = Assert.Single(error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        foreach (var part in new[] { OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1", empty.Path, CudaLibraries.Variable })
            Assert.Contains(part, line, StringComparison.Ordinal);

        (code, var output, _) = Run(empty.Path, "info", "--json");
        Assert.Equal(0, code);
        Assert.Contains("\"no_gpu\": \"CUDA: the NVIDIA driver is not there", output, StringComparison.Ordinal);
    }

    [Fact]
    public void RefusesADeviceOfAnotherName()
    {
        var (code, _, error) = Run(null, "verify", ".", "--device", "gpu");
        Assert.Equal(2, code);
        Assert.Contains("--device gpu: give cpu, cuda or cuda:N", error, StringComparison.Ordinal);
    }

    [CudaFact]
    public void InfoListsTheGpus()
    {
        var (code, output, _) = Run(Cuda.Libraries, "info", "--json");
        Assert.Equal(0, code);
        Assert.Contains($"\"interpreted\": {(Cuda.IsReal ? "false" : "true")}", output, StringComparison.Ordinal);
        (code, _, var error) = Run(Cuda.Libraries, "verify", ".", "--device", "cuda:17");
        Assert.Equal(2, code);
        Assert.Contains("there is no GPU 17", error, StringComparison.Ordinal);
    }

    [GoldenFact]
    public void VerifySaysThatItIsInterpreted()
    {
        // No adapters, to be quick.
        using var folder = new TemporaryFolder();
        var from = Shared.Path("fixtures", "models", "bert-cls");
        Directory.CreateDirectory(folder.File("model"));
        foreach (var file in new[] { "inputs.safetensors", "outputs.safetensors", "model/config.json", "model/model.safetensors" })
            File.Copy(Path.Combine(from, file), folder.File(file));
        var (code, output, error) = Run(Cuda.Libraries, "verify", folder.Path, "--device", "cuda");
        Assert.Equal("", error);
        Assert.Equal(0, code);
        Assert.Equal(!Cuda.IsReal, output.StartsWith("# interpreted: ", StringComparison.Ordinal));
        Assert.Contains(" plain logits ", output, StringComparison.Ordinal);
    }

    [CudaFact]
    public void SelectsTrainsAndEvaluatesOnTheGpu()
    {
        using var cli = new CliRun();
        if (Cuda.Libraries is { } libraries)
            cli.Environment[CudaLibraries.Variable] = libraries;
        var (code, output, error) = cli.Run("run", ["--device", "cuda", "--output", cli.File("out"), "--strategy", "cka", "--max-steps", "2", "--batch-size", "8", "--samples", "12"]);
        Assert.True(code == 0, error);
        (code, output, error) = cli.Run("eval", ["--device", "cuda", "--adapter", cli.File("out"), "--limit", "12"]);
        Assert.True(code == 0, error);
        var onCuda = Loss(output);
        (code, output, error) = cli.Run("eval", ["--adapter", cli.File("out"), "--limit", "12"]);
        Assert.True(code == 0, error);
        var onCpu = Loss(output);
        Assert.Equal(onCpu, onCuda, 1e-5);
    }

    private static double Loss(string output) => JsonDocument.Parse(output).RootElement.EnumerateObject().First().Value.GetProperty("loss").GetDouble();

    private static (int Code, string Output, string Error) Run(string? libraries, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in (string[])[typeof(VerifyCommand).Assembly.Location, .. arguments])
            start.ArgumentList.Add(argument);
        if (libraries is not null)
            start.Environment[CudaLibraries.Variable] = libraries;
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        process.WaitForExit();
        return (process.ExitCode, output.Result, error.Result);
    }
}

/// <summary>A fact for machines without NVIDIA's driver.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class NoDriverFactAttribute : FactAttribute
{
    public NoDriverFactAttribute()
    {
        if (Cuda.IsReal || NativeLibrary.TryLoad(OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1", out _))
            Skip = "a driver is installed here";
    }
}

/// <summary>A fact that needs the reference files and the stand-in, or a GPU; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class GoldenFactAttribute : FactAttribute
{
    public GoldenFactAttribute() => Skip = new SharedFactAttribute().Skip ?? Cuda.Missing;
}
