namespace NativeLora.Checkpoints;

/// <summary>Settings of rotary position embeddings, from either style of config.</summary>
/// <param name="Type"><c>default</c>, <c>linear</c>, <c>llama3</c>, or another name that the file gives.</param>
/// <param name="Theta">Base of the frequencies.</param>
/// <param name="Factor">How much the context is stretched; 1 where the type has none.</param>
/// <param name="LowFreqFactor">llama3: wavelengths over original length / this are stretched in full.</param>
/// <param name="HighFreqFactor">llama3: wavelengths under original length / this are left alone.</param>
/// <param name="OriginalMaxPositionEmbeddings">The length the model was first trained for; 0 where the type needs none.</param>
/// <param name="PartialRotaryFactor">The part of each head that is rotated; 1 for all of it.</param>
public sealed record RopeParameters(
    string Type,
    double Theta,
    double Factor,
    double LowFreqFactor,
    double HighFreqFactor,
    int OriginalMaxPositionEmbeddings,
    double PartialRotaryFactor)
{
    internal static RopeParameters Read(HfConfig config, string? layerType, double defaultTheta)
    {
        if (config.GetObject("rope_parameters") is not { } newer)
            return ReadOlder(config, layerType, defaultTheta);

        // Models with several kinds of layers keep one object for each kind.
        if (layerType is not null && newer.GetObject(layerType) is { } kind)
            newer = kind;
        else if (!newer.Has("rope_type") && (newer.IsObject("full_attention") || newer.IsObject("sliding_attention")))
            throw config.Fail("rope_parameters",
                $"is given by kind of layer, and not for {(layerType is null ? "a model with one kind" : Reject.Quote(layerType))}");
        return Scaled(config, newer, Positive(newer, "rope_theta", config.GetDouble("rope_theta", defaultTheta)));
    }

    private static RopeParameters ReadOlder(HfConfig config, string? layerType, double defaultTheta)
    {
        var local = layerType != "sliding_attention" ? null
            : config.Has("rope_local_base_freq") ? "rope_local_base_freq"
            : config.Has("local_rope_theta") ? "local_rope_theta" : null;
        if (local is not null)
            return Scaled(config, null, Positive(config, local, defaultTheta));
        var key = !config.Has("rope_theta") && config.Has("global_rope_theta") ? "global_rope_theta" : "rope_theta";
        return Scaled(config, config.GetObject("rope_scaling"), Positive(config, key, defaultTheta));
    }

    private static RopeParameters Scaled(HfConfig config, HfConfig? scaling, double theta)
    {
        var type = scaling is null ? "default" : scaling.GetString("rope_type", scaling.GetString("type", "default"));
        var partial = scaling is not null && scaling.Has("partial_rotary_factor") ? scaling : config;
        var rotated = Positive(partial, "partial_rotary_factor", 1);
        if (rotated > 1)
            throw partial.Wrong("partial_rotary_factor", "a number over 0, at most 1");
        if (scaling is null || type == "default")
            return new RopeParameters("default", theta, 1, 1, 1, 0, rotated);
        if (type is not ("linear" or "llama3"))
            return new RopeParameters(type, theta, Positive(scaling, "factor", 1), 1, 1, 0, rotated);

        var factor = Positive(scaling, "factor");
        if (type == "linear")
            return new RopeParameters(type, theta, factor, 1, 1, 0, rotated);
        var low = Positive(scaling, "low_freq_factor");
        var high = Positive(scaling, "high_freq_factor");
        if (high <= low)
            throw scaling.Wrong("high_freq_factor", $"a number over low_freq_factor ({low})");
        return new RopeParameters(
            type, theta, factor, low, high, scaling.GetPositiveInt("original_max_position_embeddings"), rotated);
    }

    private static double Positive(HfConfig from, string key, double? fallback = null) =>
        from.GetDouble(key, fallback) is > 0 and var value ? value : throw from.Wrong(key, "a number over 0");
}
