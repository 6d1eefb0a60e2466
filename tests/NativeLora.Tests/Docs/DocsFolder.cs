using System.Diagnostics;
using System.Text.Json.Nodes;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Cli;
using NativeLora.Tests.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>
/// A folder in which the commands of a page run, one after the other: <c>models/…</c>, <c>glue</c> and the other names that pages use
/// are there, and <c>nativelora</c> is the built command line.
/// </summary>
internal sealed class DocsFolder : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly SmallModel _bert = new();
    private readonly SmallLlava _llava = new();

    // What pages call it, and what it is of the reference files.
    private static readonly (string Name, string[] Shared)[] Links =
    [
        ("models/all-MiniLM-L6-v2", ["models", "minilm-l6"]),
        ("models/SmolLM2-135M", ["models", "smollm2-135m"]),
        ("models/stories260K", ["data", "stories260K", "hf"]),
        ("models/Llama-2-7b", ["reference", "paper_shapes", "llama-2-7b"]),
        ("models/roberta-base", ["reference", "paper_shapes", "roberta-base"]),
        ("fixtures", ["fixtures"]),
        ("glue", ["data", "glue"]),
        ("gsm8k", ["data", "gsm8k"]),
        ("HumanEval.jsonl.gz", ["data", "humaneval", "HumanEval.jsonl.gz"]),
        ("cat.jpg", ["data", "images", "skimage", "rocket.jpg"]),
    ];

    public DocsFolder()
    {
        foreach (var (name, shared) in Links)
            Link(name, Shared.Path(shared));
        Link("models/bert-small", _bert.Path);
        Link("rows.tsv", _bert.Data);
        Link("models/llava-small", _llava.Path);
        Link("ScienceQA", _llava.Data);
        // Only its shape: nothing that needs its weights is run.
        var bert = Directory.CreateDirectory(At("models/bert-base-uncased")).FullName;
        File.WriteAllText(Path.Combine(bert, "config.json"), """
            {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
             "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
             "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0}
            """);
        // A few of MetaMathQA's rows, as its files have them.
        var rows = JsonNode.Parse(File.ReadAllText(Shared.Path("data", "gsm8k", "metamathqa_schema_rows.json")))!;
        Directory.CreateDirectory(At("MetaMathQA/data"));
        File.WriteAllText(At("MetaMathQA/data/rows.json"), (rows as JsonArray ?? rows["rows"]!).ToJsonString());

        var program = At("bin/nativelora");
        Directory.CreateDirectory(At("bin"));
        var host = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";
        File.WriteAllText(program, $"#!/bin/sh\nexec \"{host}\" \"{Path.Combine(AppContext.BaseDirectory, "NativeLora.Cli.dll")}\" \"$@\"\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    public string At(string name) => _folder.File(name);

    /// <summary>Whether a program is in the path, or a file or folder in the repository.</summary>
    public static bool IsThere(string name) => name.Contains('/', StringComparison.Ordinal)
        ? Path.Exists(Repository.File(name.Split('/')))
        : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(p => File.Exists(Path.Combine(p, name)));

    /// <summary>Runs a line in the shell.</summary>
    public CliRun Run(string line)
    {
        using var process = Start(line);
        return CliRun.Finish(process);
    }

    /// <summary>Begins to run a line in the shell.</summary>
    public Process Start(string line)
    {
        var start = new ProcessStartInfo("bash") { WorkingDirectory = _folder.Path, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in (string[])["-c", $"set -o pipefail; {line}"])
            start.ArgumentList.Add(argument);
        start.Environment["PATH"] = $"{At("bin")}{Path.PathSeparator}{Environment.GetEnvironmentVariable("PATH")}";
        start.Environment["HF_HUB_OFFLINE"] = "1";
        start.Environment["HF_HOME"] = At("hub");
        start.Environment["COLUMNS"] = "200";
        return Process.Start(start)!;
    }

    private void Link(string name, string target)
    {
        var at = At(name);
        Directory.CreateDirectory(Path.GetDirectoryName(at)!);
        if (Directory.Exists(target))
            Directory.CreateSymbolicLink(at, target);
        else
            File.CreateSymbolicLink(at, target);
    }

    public void Dispose()
    {
        _folder.Dispose();
        _bert.Dispose();
        _llava.Dispose();
    }
}
