using System.CommandLine;
using NativeLora.Checkpoints;
using NativeLora.Cli.Show;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Hub;
using NativeLora.Models;
using NativeLora.Tensors;

namespace NativeLora.Cli.Options;

/// <summary>Which model, and how it is opened.</summary>
internal sealed class ModelOptions(bool required = true)
{
    private readonly Option<string?> _path = new("--model", "-m")
    {
        Description = "model folder, a .safetensors or .gguf file, or a model of the Hugging Face hub: owner/name, owner/name@revision, owner/name/file.gguf",
        Required = required,
        HelpName = "PATH|ID",
    };

    private readonly Option<bool> _offline = new("--offline") { Description = "take models and adapters of the hub from the local cache, never from the network" };

    private readonly Option<int?> _threads = new("--threads") { Description = "worker threads (default: all processors)", HelpName = "N" };

    private readonly Option<string> _device = DeviceChoice.Option();

    private readonly Option<string> _weights = new("--weights")
    {
        Description = "block-quantized GGUF weights: keep them in their blocks, or expand them to bf16 or fp32",
        HelpName = "TYPE",
        DefaultValueFactory = _ => "keep",
    };

    private readonly Option<string?> _quantize = new("--quantize")
    {
        Description = "hold the weights of linear layers in blocks of 8 or 4 bits: int8 (GGUF's Q8_0) or int4 (Q4_0); embeddings and the LM head stay as they are stored",
        HelpName = "TYPE",
    };

    private readonly Option<string> _precision = new("--precision")
    {
        Description = "type of activations and of the operands of products: fp32, or bf16, which also holds weight matrices in bf16",
        HelpName = "TYPE",
        DefaultValueFactory = _ => "fp32",
    };

    public void AddTo(Command command)
    {
        command.Options.Add(_path);
        command.Options.Add(_offline);
        command.Options.Add(_threads);
        command.Options.Add(_device);
        command.Options.Add(_weights);
        command.Options.Add(_quantize);
        command.Options.Add(_precision);
    }

    public ModelSettings Read(ParseResult parsed)
    {
        ElementType? type = parsed.GetValue(_weights) switch
        {
            "keep" => null,
            "bf16" => ElementType.BF16,
            "fp32" => ElementType.F32,
            var other => throw new InputException($"--weights {other}: give keep, bf16 or fp32"),
        };
        ElementType? quantize = parsed.GetValue(_quantize) switch
        {
            null => null,
            "int8" => ElementType.Q8_0,
            "int4" => ElementType.Q4_0,
            var other => throw new InputException($"--quantize {other}: give int8 or int4"),
        };
        var precision = parsed.GetValue(_precision) switch
        {
            "fp32" => ElementType.F32,
            "bf16" => ElementType.BF16,
            var other => throw new InputException($"--precision {other}: give fp32 or bf16"),
        };
        HubFolders.Offline |= parsed.GetValue(_offline);
        return new ModelSettings(parsed.GetValue(_path), parsed.GetValue(_threads), DeviceChoice.Parse(parsed.GetValue(_device)!), new CheckpointOptions { GgufType = type, Quantize = quantize }, precision);
    }
}

/// <summary>What <see cref="ModelOptions"/> came to.</summary>
internal sealed record ModelSettings(string? GivenPath, int? Threads, DeviceChoice Device, CheckpointOptions Checkpoint, ElementType Precision)
{
    private readonly Lazy<string> _path = new(() => HubFolders.Find(GivenPath ?? throw new InputException("no model is given: use --model PATH"), HubKind.Model));

    /// <summary>Where the model is. A model of the hub is fetched when this is first asked for, once the other options are known to be right.</summary>
    public string Path => _path.Value;

    /// <summary>What an adapter calls its base: the hub's name for it, else the path.</summary>
    public string BaseName => GivenPath is { } given && HubFolders.Reference(given) is { } reference ? reference.Id : Path;

    /// <summary>Last part of the path or of the hub's name: what reports and file names call the model.</summary>
    public string Name
    {
        get
        {
            if (GivenPath is { } given && HubFolders.Reference(given) is { File: null } reference)
                return reference.Name;
            var full = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path));
            return Directory.Exists(full) ? System.IO.Path.GetFileName(full) : System.IO.Path.GetFileNameWithoutExtension(full);
        }
    }

    /// <summary>Folder of tokenizer and config.</summary>
    public string Folder => Directory.Exists(Path) ? Path : System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(Path))!;

    public Device NewDevice() => Device.Open(Threads);

    private static int s_told;

    public PretrainedModel Open(Device device, IReadOnlyList<string>? labels, ulong seed = 0)
    {
        if (Precision == ElementType.BF16 && (device as CpuDevice)?.WhyNoBrainProducts is { } why && Interlocked.Exchange(ref s_told, 1) == 0)
            Ui.Note($"products of bf16 are made in fp32, which is slower ({why}; README says how to build them)");
        return PretrainedModel.Open(Path, device, new PretrainedOptions { Labels = labels, Seed = seed, Checkpoint = Checkpoint, Precision = Precision });
    }

    public ModelBlueprint Blueprint(IReadOnlyList<string>? labels = null) => ModelBlueprint.Open(Path, labels, Checkpoint, Precision);
}
