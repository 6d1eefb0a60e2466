using System.Text.Json.Serialization;

namespace NativeLora.Sample.Web;

/// <summary>Body of POST /v1/classify: one text, alone or with the second of its pair, or several texts.</summary>
public sealed record ClassifyRequest
{
    public string? Text { get; init; }

    public string? Pair { get; init; }

    public IReadOnlyList<string?>? Texts { get; init; }

    /// <summary>Name of the adapter; none: the first; empty: the model itself.</summary>
    public string? Adapter { get; init; }
}

public sealed record ClassifyResult(string Label, int Class, float Probability, IReadOnlyList<float> Probabilities);

public sealed record ClassifyResponse(string? Adapter, IReadOnlyList<string> Labels, IReadOnlyList<ClassifyResult> Results);

/// <summary>Body of POST /v1/generate.</summary>
public sealed record GenerateRequest
{
    public string? Prompt { get; init; }

    public string? Adapter { get; init; }

    public int? MaxNewTokens { get; init; }

    public float Temperature { get; init; }

    public int TopK { get; init; }

    /// <summary>1 where it is left out; generated code would not keep an initial value.</summary>
    public float? TopP { get; init; }

    public ulong Seed { get; init; }

    public IReadOnlyList<string?>? Stop { get; init; }

    public bool Stream { get; init; }
}

public sealed record GenerateResponse(string Text, int PromptTokens, int Tokens, string FinishReason);

public sealed record GeneratePiece(string Text);

public sealed record AdapterInfo(string Name, string Kind, long? Bytes);

public sealed record AdapterList(IReadOnlyList<AdapterInfo> Adapters);

public sealed record Health(string Status, int Waiting);

/// <summary>RFC 9457.</summary>
public sealed record Problem(string Type, string Title, int Status, string Detail);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    AllowDuplicateProperties = false, MaxDepth = 8)]
[JsonSerializable(typeof(ClassifyRequest))]
[JsonSerializable(typeof(ClassifyResponse))]
[JsonSerializable(typeof(GenerateRequest))]
[JsonSerializable(typeof(GenerateResponse))]
[JsonSerializable(typeof(GeneratePiece))]
[JsonSerializable(typeof(AdapterList))]
[JsonSerializable(typeof(Health))]
[JsonSerializable(typeof(Problem))]
public sealed partial class Wire : JsonSerializerContext;
