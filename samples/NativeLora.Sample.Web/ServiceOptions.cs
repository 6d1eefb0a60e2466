using System.Globalization;
using Microsoft.Extensions.Configuration;
using NativeLora.Hosting;

namespace NativeLora.Sample.Web;

/// <summary>What the service is told by appsettings.json, the environment or its command line, such as <c>--Model folder --Sessions 2</c>.</summary>
public sealed record ServiceOptions
{
    /// <summary>Folder of the model that classifies; none: there is no such endpoint.</summary>
    public string? Model { get; init; }

    /// <summary>Folder whose subfolders are adapters, each called as its folder.</summary>
    public string? Adapters { get; init; }

    /// <summary>Folder of the decoder that generates; none: there is no such endpoint.</summary>
    public string? Generator { get; init; }

    /// <summary>Folder whose subfolders are adapters of the decoder.</summary>
    public string? GeneratorAdapters { get; init; }

    /// <summary>Batches that run at once.</summary>
    public int Sessions { get; init; } = 1;

    /// <summary>Threads of each; null: the processors, shared out.</summary>
    public int? Threads { get; init; }

    /// <summary>Texts that may wait; more are refused with 503.</summary>
    public int QueueLength { get; init; } = 256;

    /// <summary>Texts of a batch, at most.</summary>
    public int BatchSequences { get; init; } = 32;

    /// <summary>Tokens of a batch, at most.</summary>
    public int BatchTokens { get; init; } = 2048;

    /// <summary>Tokens of a text; what is longer is cut.</summary>
    public int MaxLength { get; init; } = 256;

    /// <summary>Bytes of a request's body; more are refused with 413.</summary>
    public int MaxBodyBytes { get; init; } = 256 << 10;

    /// <summary>Texts of a request.</summary>
    public int MaxTexts { get; init; } = 64;

    /// <summary>Characters of a text.</summary>
    public int MaxTextChars { get; init; } = 20_000;

    /// <summary>Tokens that a request may have generated.</summary>
    public int MaxNewTokens { get; init; } = 512;

    /// <summary>Generations that run or wait; more are refused with 503.</summary>
    public int GeneratorQueueLength { get; init; } = 16;

    /// <summary>Seconds that a request may take.</summary>
    public double RequestSeconds { get; init; } = 30;

    /// <summary>Seconds between being told to stop, when /health/ready becomes 503, and taking no more requests.</summary>
    public double ShutdownDelaySeconds { get; init; }

    /// <summary>Seconds that requests have to end once no more are taken.</summary>
    public double ShutdownSeconds { get; init; } = 30;

    /// <summary>Reads the settings.</summary>
    /// <exception cref="InputException">One of them is not valid.</exception>
    public static ServiceOptions From(IConfiguration configuration)
    {
        ArgumentNullException.ThrowIfNull(configuration);
        var defaults = new ServiceOptions();
        string? Text(string key) => configuration[key] is { Length: > 0 } text ? text : null;
        int Whole(string key, int otherwise, int least, int most) => Text(key) is not { } text ? otherwise
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) && value >= least && value <= most ? value
            : throw new InputException($"{key} is \"{text}\"; give a whole number from {least} to {most}");
        double Seconds(string key, double otherwise, double least) => Text(key) is not { } text ? otherwise
            : double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var value) && value >= least && value <= 3600 ? value
            : throw new InputException($"{key} is \"{text}\"; give seconds, at most 3600");
        var options = new ServiceOptions
        {
            Model = Text(nameof(Model)),
            Adapters = Text(nameof(Adapters)),
            Generator = Text(nameof(Generator)),
            GeneratorAdapters = Text(nameof(GeneratorAdapters)),
            Sessions = Whole(nameof(Sessions), defaults.Sessions, 1, 64),
            Threads = Text(nameof(Threads)) is null ? null : Whole(nameof(Threads), 1, 1, 1024),
            QueueLength = Whole(nameof(QueueLength), defaults.QueueLength, 1, 1 << 20),
            BatchSequences = Whole(nameof(BatchSequences), defaults.BatchSequences, 1, 64),
            BatchTokens = Whole(nameof(BatchTokens), defaults.BatchTokens, 1, 1 << 20),
            MaxLength = Whole(nameof(MaxLength), defaults.MaxLength, 2, 1 << 20),
            MaxBodyBytes = Whole(nameof(MaxBodyBytes), defaults.MaxBodyBytes, 1, 1 << 30),
            MaxTexts = Whole(nameof(MaxTexts), defaults.MaxTexts, 1, 1 << 20),
            MaxTextChars = Whole(nameof(MaxTextChars), defaults.MaxTextChars, 1, 1 << 30),
            MaxNewTokens = Whole(nameof(MaxNewTokens), defaults.MaxNewTokens, 1, 1 << 20),
            GeneratorQueueLength = Whole(nameof(GeneratorQueueLength), defaults.GeneratorQueueLength, 1, 1 << 20),
            RequestSeconds = Seconds(nameof(RequestSeconds), defaults.RequestSeconds, 0.001),
            ShutdownDelaySeconds = Seconds(nameof(ShutdownDelaySeconds), defaults.ShutdownDelaySeconds, 0),
            ShutdownSeconds = Seconds(nameof(ShutdownSeconds), defaults.ShutdownSeconds, 0),
        };
        return options.MaxTexts <= options.QueueLength ? options : options with { MaxTexts = options.QueueLength };
    }

    /// <summary>How a model is loaded.</summary>
    /// <param name="adapters">Folder of adapters, or null.</param>
    public InferenceOptions Inference(string? adapters) => new()
    {
        Adapters = AdaptersIn(adapters),
        Sessions = Sessions,
        Threads = Threads,
        MaxLength = MaxLength,
        BatchTokens = BatchTokens,
        PackWeights = true,
    };

    /// <summary>Each subfolder is an adapter. What requests name is looked up among these names and never becomes a path.</summary>
    private static List<AdapterSource> AdaptersIn(string? folder)
    {
        if (folder is null)
            return [];
        if (!Directory.Exists(folder))
            throw new InputException($"{folder}: there is no such folder of adapters; give one with a subfolder for each");
        return [.. Directory.GetDirectories(folder).Order(StringComparer.Ordinal)
            .Where(f => File.Exists(Path.Combine(f, "adapter_config.json"))).Select(f => new AdapterSource(Path.GetFileName(f), f))];
    }
}
