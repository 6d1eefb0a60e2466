using System.CommandLine;
using NativeLora.Cli;
using NativeLora.Cli.Commands;
using NativeLora.Cli.Options;
using NativeLora.Cli.Study;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Hub;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Fuzz;

/// <summary>Readers of what is typed: values of options, and whole command lines.</summary>
internal static class OptionReaders
{
    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("options", "values of options", () =>
        [
            .. new[] { "4GiB", "0,3,7-9", "010011010101", "cka-debiased", "true-last", "owner/name@rev", "owner/name/file.gguf", "cuda:1", "sst2", "0.25,0.5", "0,1,7", "cosine", "adamw8bit", "regex:.*query" }.Select(v => FuzzCase.Of("value", v)),
        ], folder => Values(Encode(Path.Combine(folder, "value")))) with { NamesFile = false, Words = ["GiB", "KB", "1e9", "9999999999999999999999", "0-2147483647", "0-99999999", "random", "exhaustive", "@", "..", "cuda:", "2147483647", "4000000000"] },
        FuzzReader.Of("command-line", "whole command lines", () =>
        [
            FuzzCase.Of("args", "memory none --r 8 --alpha 16 --targets query,value --batch-size 4"),
            FuzzCase.Of("args", "info none"), FuzzCase.Of("args", "merge none --adapter none --output out"), FuzzCase.Of("args", "score none --task humaneval --data none"),
            FuzzCase.Of("args", "train --model none --data none --task text --lr 1e-4 --epochs 1"), FuzzCase.Of("args", "study --model none --task sst2 --data none --seeds 3"),
        ], Line) with { NamesFile = false, RefusesAll = true, IsAlone = true, Words = ["--model", "--json", "--help", "--r", "-1", "1e999", "--memory-budget", "4GiB", "--compare", "--suggest", "--output", "--", "@file", "[diagram]", "--version", "--tasks"] },
    ];

    private static string Encode(string path) => File.ReadAllText(path);

    private static void Values(string text)
    {
        var refused = 0;
        foreach (var read in (Action[])
        [
            () => ByteSize.Parse("--memory-budget", text), () => LayerSelection.ParseLayers(text, 12), () => SelectionOptions.Parse(text), () => TokenRules.Parse(text), () => HubReference.Parse(text),
            () => DeviceChoice.Parse(text), () => GlueTask.Get(text), () => OptimizerKinds.Parse(text), () => LearningRate.KindOf(text), () => StudyGrid.Strategies(text), () => StudyGrid.Ratios(text), () => StudyGrid.Seeds(text),
            () => LoraOptions.Names("--targets", text),
        ])
        {
            try
            {
                read();
            }
            catch (InputException e) when (e.Message.Length > 0 && !e.Message.Any(c => char.IsControl(c) || c is '\u2028' or '\u2029'))
            {
                refused++;
            }
        }
        _ = refused;
    }

    private static void Line(string folder)
    {
        var words = File.ReadAllText(Path.Combine(folder, "args")).Split((char[])[' ', '\n', '\r', '\t'], StringSplitOptions.RemoveEmptyEntries);
        // Only commands that ask for files, of which there are none; a response file or a server's name is no business of this.
        if (words.Length == 0 || words[0] is "demo" or "download" or "run" || words.Any(w => w.Contains('/', StringComparison.Ordinal) || w.StartsWith('@')))
            return;
        var root = new Command("nativelora") { InfoCommand.Create(), SelectCommand.Create(), MemoryCommand.Create(), TrainCommand.Create(), StudyCommand.Create(), EvalCommand.Create(), ScoreCommand.Create(), PredictCommand.Create(), MergeCommand.Create(), CombineCommand.Create() };
        var (output, error, at) = (Console.Out, Console.Error, Environment.CurrentDirectory);
        using var said = new StringWriter();
        try
        {
            Console.SetOut(TextWriter.Null);
            Console.SetError(said);
            Environment.CurrentDirectory = folder;
            var code = Shell.Run(root, words);
            if (code is not (0 or Shell.BadInput) || said.ToString().Contains("internal error", StringComparison.Ordinal))
                throw new InvalidOperationException($"exit code {code}: {said}");
        }
        finally
        {
            Environment.CurrentDirectory = at;
            Console.SetOut(output);
            Console.SetError(error);
        }
        if (said.ToString() is { Length: > 0 } line)
            throw new InputException(line.TrimEnd('\n').Split('\n')[^1].TrimEnd('\r'));
    }
}
