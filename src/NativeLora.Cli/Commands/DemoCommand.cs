using System.CommandLine;
using NativeLora.Cli.Demo;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora demo</c>: everything at once on generated data.</summary>
internal static class DemoCommand
{
    public static Command Create()
    {
        var output = new Option<string>("--output", "-o") { Description = "folder to write; that of an earlier demo is replaced", DefaultValueFactory = _ => "nativelora-demo", HelpName = "DIR" };
        var seed = new Option<ulong>("--seed") { Description = "same seed, same accuracies on this machine, for any number of threads", HelpName = "N" };
        var threads = new Option<int?>("--threads") { Description = "worker threads (default: all processors)", HelpName = "N" };
        var where = DeviceChoice.Option();
        var quick = new Option<bool>("--quick") { Description = "a much smaller run that only shows that everything works" };
        var json = new Option<bool>("--json") { Description = "print results.json and nothing else" };
        var command = new Command("demo", "Train a small transformer on generated data, then compare choices of layers on a shifted task. Needs no model, no data and no network.")
        {
            output, seed, threads, where, quick, json,
        };
        command.SetAction(parsed =>
        {
            var ui = new Ui(parsed.GetValue(json));
            using var folder = new DemoFolder(parsed.GetValue(output)!);
            using var device = DeviceChoice.Parse(parsed.GetValue(where)!).Open(parsed.GetValue(threads));
            var settings = (parsed.GetValue(quick) ? DemoSettings.Quick : new DemoSettings()) with { Seed = parsed.GetValue(seed) };
            var results = new DemoRun(settings, folder, device, parsed.GetValue(threads), ui, Shell.Cancellation).Run();
            if (ui.Json)
                Ui.WriteJson(results.ToJsonString(JsonText.Indented));
            return 0;
        });
        return command;
    }
}
