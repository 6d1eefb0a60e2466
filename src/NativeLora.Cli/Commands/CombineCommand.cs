using System.CommandLine;
using System.Globalization;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora combine</c>: several adapters of one base as one.</summary>
internal static class CombineCommand
{
    private static readonly Dictionary<string, CombinationType> Methods = new(StringComparer.Ordinal)
    {
        ["linear"] = CombinationType.Linear,
        ["cat"] = CombinationType.Cat,
        ["svd"] = CombinationType.Svd,
        ["ties"] = CombinationType.Ties,
        ["magnitude_prune"] = CombinationType.MagnitudePrune,
    };

    public static Command Create()
    {
        var adapters = new Option<string[]>("--adapter", "-a") { Description = "folder of a PEFT adapter, or its name on the hub; given once for each", Required = true, HelpName = "DIR" };
        var weights = new Option<string?>("--weights") { Description = "weight of each adapter, between commas (default: 1 over their number each)", HelpName = "X,Y" };
        var method = new Option<string>("--method") { Description = $"{string.Join(", ", Methods.Keys)}: PEFT's combination_type; cat is the exact weighted sum", DefaultValueFactory = _ => "cat", HelpName = "NAME" };
        var density = new Option<double?>("--density") { Description = "part of the values that ties and magnitude_prune keep", HelpName = "X" };
        var rank = new Option<int?>("--rank") { Description = "rank that svd leaves (default: the largest of the adapters)", HelpName = "N" };
        var sign = new Option<string>("--majority-sign") { Description = "how ties elects the sign of a place: total or frequency", DefaultValueFactory = _ => "total", HelpName = "HOW" };
        var output = new Option<string>("--output", "-o") { Description = "folder to write, new or empty", Required = true, HelpName = "DIR" };
        var command = new Command("combine", "Combine adapters of one base into one adapter, as PEFT's add_weighted_adapter does.") { adapters, weights, method, density, rank, sign, output };
        command.SetAction(parsed =>
        {
            var folders = parsed.GetValue(adapters)!;
            var type = Methods.TryGetValue(parsed.GetValue(method)!, out var known) ? known
                : throw new InputException($"--method {parsed.GetValue(method)}: give one of {string.Join(", ", Methods.Keys)}");
            if (parsed.GetValue(density) is not null && type is not (CombinationType.Ties or CombinationType.MagnitudePrune))
                throw new InputException($"--density has no meaning with --method {parsed.GetValue(method)}: leave it out");
            if (parsed.GetValue(rank) is not null && type != CombinationType.Svd)
                throw new InputException($"--rank has no meaning with --method {parsed.GetValue(method)}: leave it out, or use svd");
            if (parsed.GetResult(sign) is { Implicit: false } && type != CombinationType.Ties)
                throw new InputException($"--majority-sign has no meaning with --method {parsed.GetValue(method)}: leave it out");
            var options = new CombinationOptions
            {
                Density = parsed.GetValue(density),
                SvdRank = parsed.GetValue(rank),
                MajoritySign = parsed.GetValue(sign) switch
                {
                    "total" => MajoritySign.Total,
                    "frequency" => MajoritySign.Frequency,
                    var other => throw new InputException($"--majority-sign {other}: give total or frequency"),
                },
            };
            Run(folders, Weights(parsed.GetValue(weights), folders.Length), type, options, parsed.GetValue(output)!);
            return 0;
        });
        return command;
    }

    private static double[] Weights(string? text, int count)
    {
        if (text is null)
            return [.. Enumerable.Repeat(1.0 / count, count)];
        var names = LoraOptions.Names("--weights", text);
        if (names.Length != count)
            throw new InputException($"--weights names {names.Length} for {count} adapters: give one for each --adapter, in their order");
        return [.. names.Select(n => double.TryParse(n, NumberStyles.Float, CultureInfo.InvariantCulture, out var weight) && double.IsFinite(weight)
            ? weight : throw new InputException($"--weights {n}: give numbers between commas, such as 0.7,0.6"))];
    }

    private static void Run(string[] folders, double[] weights, CombinationType type, CombinationOptions options, string target)
    {
        if (File.Exists(target) || (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any()))
            throw new InputException($"{target} exists and is not an empty folder; name another, or remove it first");
        var ui = new Ui(json: false);
        var parts = new List<WeightedAdapter>();
        for (var i = 0; i < folders.Length; i++)
        {
            var (config, tensors) = AdapterFolder.Open(folders[i]).Read();
            if (config.BaseModel is { } name && parts.FirstOrDefault(p => p.Config.BaseModel is { } first && first != name)?.Config.BaseModel is { } another)
                Ui.Warn($"{folders[i]} belongs to {name}, and an adapter before it to {another}: their sum means something for one base only");
            parts.Add(new WeightedAdapter(config, tensors, weights[i]));
            ui.Fact($"adapter {i + 1}", string.Create(CultureInfo.InvariantCulture, $"{folders[i]}: r {config.Rank}, weight {weights[i]:0.####}"));
        }
        var (combined, result) = AdapterCombination.Combine(parts, type, options);
        AtomicFile.WriteFolder(target, folder => AdapterFile.Write(folder, combined, result));
        ui.Fact("written", $"{target}: r {combined.Rank}, {Ui.Count(result.Tensors.Count, "tensor")}");
    }
}
