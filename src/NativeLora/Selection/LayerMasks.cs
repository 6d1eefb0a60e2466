namespace NativeLora.Selection;

/// <summary>All masks of a size.</summary>
public static class LayerMasks
{
    /// <summary>How many choices of <paramref name="chosen"/> layers there are: C(L, k), or the largest number there is.</summary>
    public static long Count(int layers, int chosen)
    {
        if (chosen < 0 || chosen > layers)
            return 0;
        long count = 1;
        for (var i = 1; i <= Math.Min(chosen, layers - chosen); i++)
        {
            // Exact: a product of i successive numbers is divisible by i!.
            if (count > long.MaxValue / (layers - i + 1))
                return long.MaxValue;
            count = count * (layers - i + 1) / i;
        }
        return count;
    }

    /// <summary>The masks, one digit a layer, those of the first layers first: 1100, 1010, 1001, 0110, …</summary>
    public static IEnumerable<string> All(int layers, int chosen)
    {
        var mask = new char[layers];
        return chosen < 0 || chosen > layers ? [] : From(0, chosen);

        IEnumerable<string> From(int layer, int left)
        {
            if (layer == layers)
            {
                yield return new string(mask);
                yield break;
            }
            foreach (var digit in "10")
            {
                var rest = digit == '1' ? left - 1 : left;
                if (rest < 0 || rest > layers - layer - 1)
                    continue;
                mask[layer] = digit;
                foreach (var whole in From(layer + 1, rest))
                    yield return whole;
            }
        }
    }
}
