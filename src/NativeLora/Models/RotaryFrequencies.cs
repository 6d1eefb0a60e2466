using NativeLora.Checkpoints;

namespace NativeLora.Models;

/// <summary>Angles of position 1, as transformers computes them in fp32.</summary>
internal static class RotaryFrequencies
{
    /// <summary>1 / θ^(2i/d), scaled as the config says: default, linear or llama3.</summary>
    /// <exception cref="InputException">The kind of scaling is not supported.</exception>
    public static float[] InverseFrequencies(RopeParameters rope, int headDim, HfConfig config)
    {
        if (rope.PartialRotaryFactor != 1)
            throw config.Fail("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, supported is 1");
        var frequencies = new float[headDim / 2];
        for (var i = 0; i < frequencies.Length; i++)
        {
            var plain = 1f / MathF.Pow((float)rope.Theta, 2f * i / headDim);
            frequencies[i] = rope.Type switch
            {
                "default" => plain,
                "linear" => plain / (float)rope.Factor,
                "llama3" => Llama3(plain, rope),
                _ => throw config.Fail("rope_type", $"is \"{rope.Type}\", supported are default, linear, llama3"),
            };
        }
        return frequencies;
    }

    /// <summary>Long wavelengths are divided by the factor, short ones kept, those between blended.</summary>
    private static float Llama3(float frequency, RopeParameters rope)
    {
        var wavelength = 2 * MathF.PI / frequency;
        float old = rope.OriginalMaxPositionEmbeddings, low = (float)rope.LowFreqFactor, high = (float)rope.HighFreqFactor;
        if (wavelength > old / low)
            return frequency / (float)rope.Factor;
        if (wavelength < old / high)
            return frequency;
        var smooth = (old / wavelength - low) / (high - low);
        return (1 - smooth) * frequency / (float)rope.Factor + smooth * frequency;
    }
}
