using NativeLora.Checkpoints;

namespace NativeLora.Models;

/// <summary>Inverse frequencies of rotary embeddings, in fp32 step by step as transformers computes them.</summary>
internal static class RotaryFrequencies
{
    /// <summary>The frequencies that a config asks for.</summary>
    /// <param name="rope">The settings.</param>
    /// <param name="headDim">Width of a head.</param>
    /// <param name="config">Where they come from.</param>
    /// <param name="partial">Whether the family may rotate only the first columns of a head.</param>
    /// <exception cref="InputException">The kind of scaling is not supported.</exception>
    public static float[] Of(RopeParameters rope, int headDim, HfConfig config, bool partial = false)
    {
        if (rope.PartialRotaryFactor != 1 && !partial)
            throw config.Fail("partial_rotary_factor", $"is {rope.PartialRotaryFactor}, supported is 1");
        var dim = (int)(headDim * rope.PartialRotaryFactor);
        if (dim < 2 || dim % 2 != 0)
            throw config.Fail("head_dim", $"is {headDim}, of which {dim} columns are rotated; rotary embedding needs an even width");
        return rope.Type switch
        {
            "default" => Default(rope.Theta, dim),
            "linear" => Linear(rope.Theta, dim, rope.Factor),
            "llama3" => Llama3(rope.Theta, dim, rope.Factor, rope.LowFreqFactor, rope.HighFreqFactor, rope.OriginalMaxPositionEmbeddings),
            _ => throw config.Fail("rope_type", $"is \"{rope.Type}\", supported are default, linear, llama3"),
        };
    }

    /// <summary>1 / theta^(2i / dim) for i below dim / 2.</summary>
    public static float[] Default(double theta, int dim)
    {
        var result = new float[dim / 2];
        for (var i = 0; i < result.Length; i++)
        {
            var exponent = 2 * i / (float)dim;
            result[i] = 1f / (float)Math.Pow((float)theta, exponent);
        }
        return result;
    }

    /// <summary>Linear scaling: all frequencies divided by the factor.</summary>
    public static float[] Linear(double theta, int dim, double factor)
    {
        var result = Default(theta, dim);
        for (var i = 0; i < result.Length; i++)
            result[i] /= (float)factor;
        return result;
    }

    /// <summary>Llama 3: long waves divided by the factor, short ones kept, a smooth passage between.</summary>
    public static float[] Llama3(
        double theta, int dim, double factor, double lowFreqFactor, double highFreqFactor, int originalMaxPositionEmbeddings)
    {
        var lowWavelength = (float)(originalMaxPositionEmbeddings / lowFreqFactor);
        var highWavelength = (float)(originalMaxPositionEmbeddings / highFreqFactor);
        var result = Default(theta, dim);
        for (var i = 0; i < result.Length; i++)
        {
            // torch divides a number by a tensor as number · (1 / tensor).
            var wavelength = 1f / result[i] * (float)(2 * Math.PI);
            if (wavelength > lowWavelength)
            {
                result[i] /= (float)factor;
            }
            else if (wavelength >= highWavelength)
            {
                var smooth = 1f / wavelength * originalMaxPositionEmbeddings - (float)lowFreqFactor;
                smooth /= (float)(highFreqFactor - lowFreqFactor);
                result[i] = (1f - smooth) * result[i] / (float)factor + smooth * result[i];
            }
        }
        return result;
    }
}
