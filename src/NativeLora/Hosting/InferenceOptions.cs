using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Tensors;

namespace NativeLora.Hosting;

/// <summary>A PEFT adapter to be loaded over a model.</summary>
/// <param name="Name">What calls name it by.</param>
/// <param name="Folder">Its folder, with <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>.</param>
public sealed record AdapterSource(string Name, string Folder)
{
    /// <summary>An adapter in memory, in place of the folder's.</summary>
    internal TrainedAdapter? Trained { get; init; }

    /// <summary>Names, in a call, the base without an adapter.</summary>
    public const string None = "";
}

/// <summary>How a model is loaded to be called: a folder is enough, everything here has a default.</summary>
public sealed record InferenceOptions
{
    /// <summary>Adapters over the model. A call that names none gets the first; <see cref="AdapterSource.None"/> names the base as it is.</summary>
    public IReadOnlyList<AdapterSource> Adapters { get; init; } = [];

    /// <summary>Names of the classes, where neither the adapter's <c>labels.json</c> nor the model's config has those wanted.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Calls that run at once; others wait for their turn. Each has memory and threads of its own and shares the weights.</summary>
    public int Sessions { get; init; } = 1;

    /// <summary>Threads that a call runs on, the caller's included; null: the processors, shared out among the sessions.</summary>
    public int? Threads { get; init; }

    /// <summary>Tokens of a sequence, at most: longer texts are cut, longer ids refused. Null: 512, or less where the model's files say so.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Tokens that are worked on at a time, at most; decides how much memory a session has. A longer sequence makes it longer.</summary>
    public int BatchTokens { get; init; } = 2048;

    /// <summary>Whether each session keeps a copy of the weights in the order that products read them in: quicker for short texts, for their bytes once more.</summary>
    public bool PackWeights { get; init; }

    /// <summary>Element type of activations: fp32, or bf16.</summary>
    public ElementType Precision { get; init; } = ElementType.F32;

    /// <summary>Whether the blocks of a GGUF file are kept, and whether weights are quantized.</summary>
    public CheckpointOptions Checkpoint { get; init; } = new();

    /// <summary>A device of the caller's, who disposes of it afterwards; it runs one call at a time. Null: the CPU.</summary>
    public Device? Device { get; init; }

    /// <summary>Is told of the model's opening and its sessions; null: nobody. <c>NativeLora.Extensions</c> has one that logs.</summary>
    public IModelObserver? Observer { get; init; }

    /// <summary>Checks the ranges.</summary>
    /// <exception cref="InputException">A value makes no sense.</exception>
    public void Validate()
    {
        Require(Sessions is >= 1 and <= 1024, "number of sessions", Sessions, "1 to 1024");
        Require(Threads is null or (>= 1 and <= 1024), "number of threads", Threads ?? 0, "1 to 1024");
        Require(MaxLength is null or >= 1, "maximum length", MaxLength ?? 0, "at least 1 token");
        Require(BatchTokens is >= 1 and <= 1 << 20, "number of tokens of a batch", BatchTokens, "1 to 1048576");
        if (Device is not null && (Sessions != 1 || Threads is not null))
            throw new InputException("a device that is given runs one call at a time on threads of its own; leave Sessions at 1 and Threads out");
        if (Labels is { Count: 0 })
            throw new InputException("a list of no labels is given; name at least one");
        foreach (var adapter in Adapters)
        {
            if (string.IsNullOrEmpty(adapter.Name))
                throw new InputException($"{adapter.Folder}: the adapter has no name; give it one that calls can name it by");
            if (adapter.Trained is null && !System.IO.Directory.Exists(adapter.Folder))
                throw new InputException($"{adapter.Folder}: there is no such folder; give the one that holds adapter_config.json of \"{adapter.Name}\"");
        }
    }

    /// <summary>Threads of each session.</summary>
    internal int ThreadsOfSession => Threads ?? Math.Max(1, Environment.ProcessorCount / Sessions);

    private static void Require(bool good, string what, int value, string allowed)
    {
        if (!good)
            throw new InputException($"the {what} is {value}; give {allowed}");
    }
}
