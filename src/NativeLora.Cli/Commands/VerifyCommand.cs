using System.CommandLine;
using NativeLora.Cli.Options;
using NativeLora.Cli.Verify;
using NativeLora.Devices.Cuda;
using NativeLora.Hub;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora verify</c>: compares this engine with goldens of the reference stack.</summary>
internal static class VerifyCommand
{
    public static Command Create()
    {
        var folders = new Argument<string[]>("case") { Description = "fixture folders; with --model: folders of reference training runs", Arity = ArgumentArity.OneOrMore };
        var model = new Option<string?>("--model") { Description = "base model: the folders are reference training runs over it" };
        var threads = new Option<int?>("--threads") { Description = "worker threads (default: all processors)" };
        var where = DeviceChoice.Option();
        var precision = new Option<string>("--precision") { Description = "fp32, or bf16: at most 1.5 times as far from the goldens as PyTorch's bf16", DefaultValueFactory = _ => "fp32" };
        precision.AcceptOnlyFromAmong("fp32", "bf16");
        var command = new Command("verify", "Compare with goldens: a line a quantity, CASE VARIANT quantity error tolerance pass|FAIL; exit code 0 only if all pass.")
        {
            folders, model, threads, where, precision,
        };
        command.SetAction(result =>
        {
            using var device = DeviceChoice.Parse(result.GetValue(where)!).Open(result.GetValue(threads));
            var report = new VerifyReport(Console.Out);
            // Kernels may be right there and slow or refused on a GPU: no line of the stand-in may be taken for one of a GPU.
            if (device is CudaDevice { IsInterpreted: true })
                report.Note($"# interpreted: {device.Description}; no GPU was used");
            foreach (var folder in result.GetValue(folders)!)
            {
                if (!Directory.Exists(folder))
                    throw new InputException($"{folder}: there is no such folder");
                var brain = result.GetValue(precision) == "bf16";
                if (result.GetValue(model) is { } given)
                    new RunVerifier(HubFolders.Find(given, HubKind.Model), folder, device, report, brain).Run();
                else if (brain)
                    new BrainVerifier(folder, device, report).Run();
                else
                    new CaseVerifier(folder, device, report).Run();
            }
            return report.AllPassed ? 0 : Shell.Failure;
        });
        return command;
    }
}
