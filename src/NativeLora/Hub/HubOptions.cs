namespace NativeLora.Hub;

/// <summary>Where the hub and its cache are, and how patient to be. The environment variables are those of Python's huggingface_hub.</summary>
public sealed record HubOptions
{
    /// <summary>The hub, unless another is named.</summary>
    public const string DefaultEndpoint = "https://huggingface.co";

    /// <summary>The cache's folder: HF_HUB_CACHE, else <c>hub</c> in HF_HOME.</summary>
    public required string CacheFolder { get; init; }

    /// <summary>The hub: HF_ENDPOINT.</summary>
    public Uri Endpoint { get; init; } = new(DefaultEndpoint);

    /// <summary>Use what is in the cache and nothing else: HF_HUB_OFFLINE.</summary>
    public bool Offline { get; init; }

    /// <summary>Who asks: HF_TOKEN, or the file that <c>hf auth login</c> writes. It goes to the endpoint's host only, and only over https or to this machine.</summary>
    internal string? Token { get; init; }

    /// <summary>Tries in a row that may fail before it is given up.</summary>
    internal int Attempts { get; init; } = 5;

    /// <summary>Longest pause that a server may ask for.</summary>
    internal TimeSpan LongestWait { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>How long an answer may take to begin, or to go on.</summary>
    internal TimeSpan Stall { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>What answers in place of the network; null for the network.</summary>
    internal HttpMessageHandler? Handler { get; init; }

    /// <summary>How a pause is made.</summary>
    internal Func<TimeSpan, CancellationToken, Task> Delay { get; init; } = Task.Delay;

    /// <summary>Whether snapshots link to blobs; null: if the system lets them.</summary>
    internal bool? SymbolicLinks { get; init; }

    /// <summary>The token never shows.</summary>
    public override string ToString() => $"{Endpoint} {CacheFolder}";

    /// <summary>What the environment says.</summary>
    /// <exception cref="InputException">It says something that cannot be.</exception>
    public static HubOptions FromEnvironment() => From(Environment.GetEnvironmentVariable);

    internal static HubOptions From(Func<string, string?> environment)
    {
        var user = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        var home = Folder("HF_HOME") ?? Path.Combine(Folder("XDG_CACHE_HOME") ?? Path.Combine(user, ".cache"), "huggingface");
        return new HubOptions
        {
            CacheFolder = Path.GetFullPath(Folder("HF_HUB_CACHE") ?? Folder("HUGGINGFACE_HUB_CACHE") ?? Path.Combine(home, "hub")),
            Endpoint = ParseEndpoint(Value("HF_ENDPOINT") ?? DefaultEndpoint),
            Offline = IsTrue(Value("HF_HUB_OFFLINE") ?? Value("TRANSFORMERS_OFFLINE")),
            Token = IsTrue(Value("HF_HUB_DISABLE_IMPLICIT_TOKEN")) ? null : FindToken(),
        };

        string? Value(string name) => environment(name) is { } value && value.Trim().Length > 0 ? value.Trim() : null;

        string? Folder(string name) => Value(name) is not { } value ? null
            : value == "~" ? user : value.StartsWith("~/", StringComparison.Ordinal) ? Path.Combine(user, value[2..]) : value;

        string? FindToken()
        {
            foreach (var name in (string[])["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
                if (Value(name) is { } value)
                    return CheckToken(value, name);
            var file = Folder("HF_TOKEN_PATH") ?? Path.Combine(home, "token");
            try
            {
                return File.Exists(file) && File.ReadAllText(file).Trim() is { Length: > 0 } text ? CheckToken(text, file) : null;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new InputException($"{file}: the hub's token cannot be read: {e.Message}", e);
            }
        }
    }

    private static bool IsTrue(string? value) => value?.ToUpperInvariant() is "1" or "ON" or "YES" or "TRUE";

    private static Uri ParseEndpoint(string text) =>
        Uri.TryCreate(text.TrimEnd('/'), UriKind.Absolute, out var uri) && (uri.Scheme == Uri.UriSchemeHttps || uri.Scheme == Uri.UriSchemeHttp)
        && uri.UserInfo.Length == 0 && uri.Query.Length == 0 && uri.Fragment.Length == 0
            ? uri
            : throw new InputException("HF_ENDPOINT is no address such as https://huggingface.co");

    // It becomes a header; what is wrong with it must not be shown.
    private static string CheckToken(string token, string where) =>
        token.Length <= 4096 && token.All(c => c is > ' ' and <= '~') ? token
        : throw new InputException($"{where}: holds no token of the hub: it has blanks or other characters that none has");
}
